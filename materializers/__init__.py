"""How our own artifact types are kept by ZenML: what is saved loads back equal, with pictures for its dashboard."""
