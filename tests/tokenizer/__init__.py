"""Tests of pyggml.tokenizer."""
