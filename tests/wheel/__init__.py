"""What is wrong with a wheel shows only when it is installed: run from an empty directory, see .ci/run."""
