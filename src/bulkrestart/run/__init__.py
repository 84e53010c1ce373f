"""The shell: it performs what the core decides. tenacity and anyio live here."""
