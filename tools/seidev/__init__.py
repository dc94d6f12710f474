"""Development tools: the real servers behind the tests and the demo, and the stand-ins for what cannot be real here."""
