"""trouble."""
