"""HTTP: Ollama's API, what it lacks, and the generator that all APIs share."""
