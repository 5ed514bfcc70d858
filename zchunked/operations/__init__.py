"""Operations: what a client does, wired together out of store, sources, pull and exports."""
