"""What a card says about the machine."""

from __future__ import annotations

import getpass
import json
import os
import platform
import subprocess
import sys

from hublora.cards.environment import describe_environment


def test_environment_names_versions_and_device():
    found = describe_environment()
    assert found["python"] == platform.python_version()
    assert {"os", "hublora", "torch", "diffusers", "peft", "device", "cpu_cores"} <= found.keys()


def test_environment_says_nothing_about_whose_machine_it_is():
    text = json.dumps(describe_environment())
    for secret in (platform.node(), os.path.expanduser("~"), os.getcwd(), sys.prefix):
        assert not secret or secret not in text
    assert f'"{getpass.getuser()}"' not in text


def test_cards_import_no_torch():
    modules = (
        "hublora.cards.write, hublora.cards.plots, hublora.cards.environment, hublora.image_grid"
    )
    check = (
        f"import sys, {modules}; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0
