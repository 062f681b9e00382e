"""What the manual is generated with."""
