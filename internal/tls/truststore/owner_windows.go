package truststore

// mayAct returns why this process must not act in the scope; nil if it may. Windows itself
// asks and refuses.
func (s *Stores) mayAct() error { return nil }
