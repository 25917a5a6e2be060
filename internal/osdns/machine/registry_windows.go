package machine

import (
	"fmt"

	"golang.org/x/sys/windows/registry"
)

// realRegistry is this machine's. The errors of its functions wrap those of the
// system, of which that for a missing key is fs.ErrNotExist.
func realRegistry() Registry {
	return Registry{
		Keys: func(path string) ([]string, error) {
			return withKey(path, registry.ENUMERATE_SUB_KEYS, func(k registry.Key) ([]string, error) {
				return k.ReadSubKeyNames(-1)
			})
		},
		Values: func(path string) (map[string]any, error) {
			return withKey(path, registry.QUERY_VALUE, readValues)
		},
		SetValue: func(path, name string, value any) error {
			_, err := withKey(path, registry.SET_VALUE, func(k registry.Key) (struct{}, error) {
				return struct{}{}, setValue(k, name, value)
			})
			return err
		},
		MakeKey: func(path string) error {
			k, _, err := registry.CreateKey(registry.LOCAL_MACHINE, path, registry.QUERY_VALUE)
			if err != nil {
				return fmt.Errorf("make the key %s: %w", path, err)
			}
			return k.Close()
		},
		RemoveKey: func(path string) error {
			if err := registry.DeleteKey(registry.LOCAL_MACHINE, path); err != nil {
				return fmt.Errorf("remove the key %s: %w", path, err)
			}
			return nil
		},
	}
}

// withKey opens a key, calls do, and closes it.
func withKey[T any](path string, access uint32, do func(registry.Key) (T, error)) (T, error) {
	var result T
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, path, access)
	if err == nil {
		defer k.Close()
		result, err = do(k)
	}
	if err != nil {
		return result, fmt.Errorf("registry key %s: %w", path, err)
	}
	return result, nil
}

func readValues(k registry.Key) (map[string]any, error) {
	names, err := k.ReadValueNames(-1)
	if err != nil {
		return nil, err
	}
	values := make(map[string]any, len(names))
	for _, name := range names {
		_, kind, err := k.GetValue(name, nil)
		if err != nil {
			return nil, err
		}
		var value any
		switch kind {
		case registry.SZ:
			value, _, err = k.GetStringValue(name)
		case registry.MULTI_SZ:
			value, _, err = k.GetStringsValue(name)
		case registry.DWORD:
			var n uint64
			n, _, err = k.GetIntegerValue(name)
			value = uint32(n)
		}
		if err != nil {
			return nil, err
		}
		values[name] = value
	}
	return values, nil
}

func setValue(k registry.Key, name string, value any) error {
	switch v := value.(type) {
	case string:
		return k.SetStringValue(name, v)
	case []string:
		return k.SetStringsValue(name, v)
	case uint32:
		return k.SetDWordValue(name, v)
	}
	return fmt.Errorf("value %s: the registry has no type for %T", name, value)
}
