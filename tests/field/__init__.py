"""The product in the field: a row of MX hosts in a small internet."""
