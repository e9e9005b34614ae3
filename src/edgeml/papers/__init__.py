"""The papers of a bundle: cards, bill of materials, provenance, licences. They state what is known."""
