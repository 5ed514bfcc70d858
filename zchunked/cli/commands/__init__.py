"""What each verb does, one file per family of verbs."""
