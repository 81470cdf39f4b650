"""The fault suite: the world breaks under a steady load, and the mail goes on (`make test-faults`)."""
