"""What tests of several rooms share. Fixtures stand in tests/conftest.py."""
