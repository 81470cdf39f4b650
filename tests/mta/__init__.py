"""Tests through real MTAs: Postfix and Sendmail."""
