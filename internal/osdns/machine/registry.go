package machine

// A Registry is what the rungs do to Windows' registry and see of it. Keys are
// paths below HKEY_LOCAL_MACHINE. That one is not there is fs.ErrNotExist.
type Registry struct {
	// Keys lists the names of the keys directly below one.
	Keys func(key string) ([]string, error)
	// Values are a key's values: string (REG_SZ), []string (REG_MULTI_SZ) or
	// uint32 (REG_DWORD); nil if it is of another type.
	Values   func(key string) (map[string]any, error)
	SetValue func(key, name string, value any) error
	// MakeKey makes a key, and those above it. RemoveKey removes one with its
	// values; one that has keys below it stays, and is an error.
	MakeKey   func(key string) error
	RemoveKey func(key string) error
}

// before is System.Before for the registry.
func (r Registry) before(step func(what string) error) Registry {
	old := r
	r.SetValue = func(key, name string, value any) error {
		if err := step("set value " + key + " " + name); err != nil {
			return err
		}
		return old.SetValue(key, name, value)
	}
	r.MakeKey = func(key string) error {
		if err := step("make key " + key); err != nil {
			return err
		}
		return old.MakeKey(key)
	}
	r.RemoveKey = func(key string) error {
		if err := step("remove key " + key); err != nil {
			return err
		}
		return old.RemoveKey(key)
	}
	return r
}
