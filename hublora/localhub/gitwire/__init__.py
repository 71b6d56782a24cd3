"""Git's smart HTTP protocol over the same repositories that the API writes.

Protocol: https://git-scm.com/docs/gitprotocol-http and gitprotocol-pack, version 0, which every
git client speaks. Only `git-upload-pack`, what clone and fetch ask for: nothing is received.
"""
