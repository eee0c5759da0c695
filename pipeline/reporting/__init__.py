"""From the files under reports/ to something a person reads."""
