"""Git's smart HTTP protocol over the same repositories that the API writes.

Protocol: https://git-scm.com/docs/gitprotocol-http and gitprotocol-pack, version 0, which every
git client speaks. Packs are read and written here; objects, locks and refs are the store's.
"""
