"""How pyggml is built: what fetch.py and CMake do, and what they say when they cannot."""
