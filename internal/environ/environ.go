// Package environ keeps what a service needs of its user's shell: a service has
// another environment, in which a kubeconfig's credential plugins would not be found,
// or not know on whose behalf they are asked.
//
// What is taken is a list of names, without secrets: what is written to a disk is
// found there by others, and goes stale, while the programs that made it get a new one
// by themselves.
package environ

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	// maxVariable bounds a name and its value, which is what Windows gives them; Linux
	// starts no program with four times that.
	maxVariable = 32 << 10
	// maxAll bounds all of them: what the file and the control API may take, however
	// JSON has to write it.
	maxAll = 128 << 10
)

// A Reason says why a variable was left out.
type Reason string

const (
	Secret  Reason = "looks like a secret"
	TooLong Reason = "is too long"
	NotText Reason = "is not UTF-8 text"
)

// A LeftOut is a variable that would have been of use, and was not taken.
type LeftOut struct {
	Name   string `json:"name"`
	Reason Reason `json:"reason"`
}

// Take takes what is wanted of an environment, which is as os.Environ has it, of a
// process that runs in dir. Paths of kubeconfigs become absolute, and directories of
// PATH that are not are left out, since a service runs elsewhere.
func Take(environment []string, dir string) (map[string]string, []LeftOut) {
	all := make(map[string]string, len(environment))
	for _, variable := range environment {
		if name, value, ok := strings.Cut(variable, "="); ok && name != "" {
			if runtime.GOOS == "windows" { // which has them in any case, such as Path
				name = strings.ToUpper(name)
			}
			all[name] = value
		}
	}
	takeBack(all)
	if files, ok := all["KUBECONFIG"]; ok {
		all["KUBECONFIG"] = eachPath(files, func(path string) string {
			if path == "" || filepath.IsAbs(path) {
				return path
			}
			return filepath.Join(dir, path)
		})
	}
	if dirs, ok := all["PATH"]; ok {
		all["PATH"] = eachPath(dirs, func(path string) string {
			if !filepath.IsAbs(path) {
				return ""
			}
			return path
		})
	}
	return Filter(all)
}

// takeBack undoes what "tunnelctl env" has done to variables: the files that it names
// hold our CA for that shell's programs, and are gone when the CA is. What was there
// before is in a variable of its own, in JSON.
func takeBack(all map[string]string) {
	before := make(map[string]string)
	_ = json.Unmarshal([]byte(all["TUNNELD_ENV"]), &before) // of nothing it is nothing
	for name, value := range all {
		if filepath.Ext(value) != ".pem" || !strings.HasSuffix(filepath.ToSlash(filepath.Dir(value)), "/tunneld/env") {
			continue
		}
		delete(all, name)
		if was := before[name]; was != "" {
			all[name] = was
		}
	}
}

// eachPath changes each path of a list; one that becomes empty goes.
func eachPath(list string, change func(string) string) string {
	var paths []string
	for _, path := range filepath.SplitList(list) {
		if path = change(path); path != "" {
			paths = append(paths, path)
		}
	}
	return strings.Join(paths, string(filepath.ListSeparator))
}

// Filter is what may be kept of variables, and what of the others somebody might
// miss, sorted by name. Empty values are as good as none to the programs in question.
func Filter(variables map[string]string) (map[string]string, []LeftOut) {
	kept, left, size := make(map[string]string), []LeftOut{}, 0
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		value := variables[name]
		allow, exact := isAllowed(name)
		if !allow || !isName(name) || value == "" {
			continue
		}
		switch bytes := len(name) + len(value); {
		case isSecret(name, value, exact):
			left = append(left, LeftOut{name, Secret})
		case !utf8.ValidString(value) || strings.ContainsRune(value, 0):
			left = append(left, LeftOut{name, NotText})
		case bytes > maxVariable, size+bytes > maxAll:
			left = append(left, LeftOut{name, TooLong})
		default:
			kept[name] = value
			size += bytes
		}
	}
	return kept, left
}

// isName reports whether it is a name as shells have them.
func isName(name string) bool {
	for i, r := range name {
		switch {
		case r >= 'A' && r <= 'Z', r >= 'a' && r <= 'z', r == '_':
		case r >= '0' && r <= '9' && i > 0:
		default:
			return false
		}
	}
	return name != ""
}

// Changes are names of variables, sorted.
type Changes struct {
	Set     []string `json:"set"`     // which were not there before
	Changed []string `json:"changed"` // which had another value
	Unset   []string `json:"unset"`   // which are not there any more
}

// A Process is the environment of this process. The zero value has changed nothing
// of it. It is not for concurrent use, and there is one at a time; the
// environment itself may be read meanwhile.
type Process struct {
	// before is what each variable was when it was first set here; nil: nothing.
	before map[string]*string
}

// Apply sets the variables, and takes back those that a former Apply has set and that
// are not among them.
func (p *Process) Apply(variables map[string]string) (Changes, error) {
	if p.before == nil {
		p.before = make(map[string]*string)
	}
	changes := Changes{Set: []string{}, Changed: []string{}, Unset: []string{}}
	for _, name := range slices.Sorted(maps.Keys(p.before)) {
		if _, stays := variables[name]; stays {
			continue
		}
		now, was := os.Getenv(name), p.before[name]
		if err := restore(name, was); err != nil {
			return changes, err
		}
		delete(p.before, name)
		switch {
		case was == nil:
			changes.Unset = append(changes.Unset, name)
		case *was != now:
			changes.Changed = append(changes.Changed, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		now, there := os.LookupEnv(name)
		if err := os.Setenv(name, variables[name]); err != nil {
			return changes, err
		}
		if _, known := p.before[name]; !known {
			p.before[name] = nil
			if there {
				p.before[name] = &now
			}
		}
		switch {
		case !there:
			changes.Set = append(changes.Set, name)
		case now != variables[name]:
			changes.Changed = append(changes.Changed, name)
		}
	}
	slices.Sort(changes.Changed)
	return changes, nil
}

// Restore takes back whatever Apply has set.
func (p *Process) Restore() error {
	_, err := p.Apply(nil)
	return err
}

func restore(name string, was *string) error {
	if was == nil {
		return os.Unsetenv(name)
	}
	return os.Setenv(name, *was)
}
