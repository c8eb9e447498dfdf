"""Exports in the field: installed and gone back from, signed and verified, and watched while they run."""
