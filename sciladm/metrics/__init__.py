"""Statistics that add, and the scores, tables and intervals made of them; no models here."""
