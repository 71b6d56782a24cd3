"""Serves one warm base model with any adapters of the Hub, many requests in one batch.

    clients ─▶ api/ (one file a protocol) ─▶ requests.GenerationRequest ─▶ engine.Engine
            ─▶ adapters (refs at a commit, in memory) ─▶ a pipeline for each request, in a thread
            ─▶ batching/ (denoiser calls of equal shape meet, each sample with its own adapters)

Nothing here knows a family.
"""
