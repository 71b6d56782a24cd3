.PHONY: check format test docs tiny-base build

check:  ## everything that CI checks besides the tests
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	python tools/check_docstrings.py
	python docs/make_cli.py --check
	python docs/make_api.py --check
	python docs/make_families.py --check

format:
	ruff format .
	ruff check --fix .

test:
	pytest

docs:  ## docs/cli.md from --help, docs/python-api.md from docstrings
	python docs/make_cli.py
	python docs/make_api.py
	python docs/make_families.py

tiny-base:  ## train the demo's base from nothing: an hour or two on two cores
	python -m tools.tiny_base.make_base

build:
	python -m build
