package atomicfile

// isInvalid reports that a directory cannot be synced, which is so for all of
// them: a rename is in the file system's journal.
func isInvalid(error) bool { return true }
