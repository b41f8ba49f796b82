"""Tests of pyggml.chat."""
