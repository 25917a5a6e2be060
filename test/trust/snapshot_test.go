//go:build trust

package trust

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// describeTree describes each file below a directory, or the one file, under the name
// that it has from outside of prefix. What does not exist is not there.
func describeTree(found map[string]string, dir, prefix string) error {
	return filepath.WalkDir(filepath.Join(prefix, dir), func(path string, d fs.DirEntry, err error) error {
		name := "/" + strings.TrimPrefix(strings.TrimPrefix(path, prefix), "/")
		if err == nil {
			found[name], err = describe(path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}

// describe describes a file: mode, owner, content, and where a link leads. Of
// databases it describes what is in them, since each change has them written anew.
func describe(path string) (string, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	stat := info.Sys().(*syscall.Stat_t)
	text := fmt.Sprintf("%v %d:%d", info.Mode(), stat.Uid, stat.Gid)
	switch {
	case info.Mode().IsRegular():
		content, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		sum := sha256.Sum256(content)
		if dump, ok := databases[filepath.Base(path)]; ok {
			if _, ok := dumped[sum]; !ok {
				out, err := exec.Command(dump[0], append(dump[1:], path)...).Output()
				if err != nil {
					return "", fmt.Errorf("list what is in %s: %w", path, err)
				}
				dumped[sum] = string(out)
			}
			return text + "\n" + dumped[sum], nil
		}
		text += fmt.Sprintf(" %d bytes %.8x", len(content), sum)
	case info.Mode()&fs.ModeSymlink != 0:
		to, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		text += " to " + to
	}
	return text, nil
}

// databases are programs that print what is in the files of that name: NSS's are
// SQLite's, of whose rows the first column is a random number.
var databases = map[string][]string{
	"cert9.db": {"/usr/bin/python3", "-c", dumpSQLite},
	"key4.db":  {"/usr/bin/python3", "-c", dumpSQLite},
	"cacerts":  {"/bin/sh", "-euc", listJava},
}

// dumped is what was in databases, by the checksum of the file: it takes a second.
var dumped = make(map[[sha256.Size]byte]string)

// listJava leaves out when an entry was made, which for some is when the file was.
const listJava = `
list=$(keytool -J-XX:TieredStopAtLevel=1 -list -storepass changeit -keystore "$0")
echo "$list" | sed 's/, [A-Z][a-z]* [0-9]*, [0-9]*, / /'`

const dumpSQLite = `
import hashlib, sqlite3, sys
db = sqlite3.connect("file:" + sys.argv[1] + "?mode=ro&immutable=1", uri=True)
for (table,) in sorted(db.execute("select name from sqlite_master where type = 'table'")):
    for row in sorted(repr(row[1:]) for row in db.execute("select * from " + table)):
        print("    ", table, hashlib.sha256(row.encode()).hexdigest()[:16])
`

// differences lists what differs between two descriptions; empty if nothing does.
func differences(before, after map[string]string) string {
	all := maps.Clone(before)
	maps.Copy(all, after)
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		was, is := before[name], after[name]
		switch {
		case was == is:
		case strings.Contains(was, "\n") && strings.Contains(is, "\n"):
			fmt.Fprintf(&text, "  %s\n%s", name, cmp.Diff(strings.Split(was, "\n"), strings.Split(is, "\n")))
		default:
			fmt.Fprintf(&text, "  %s\n    was %s\n    is  %s\n", name, orElse(was), orElse(is))
		}
	}
	return text.String()
}

func orElse(s string) string {
	if s == "" {
		return "not there, or as the machine has it"
	}
	return s
}

// changed describes each file of the covered directories that the machine has
// changed since it was booted, in whatever way: all others are as they were before.
// A file that is gone is "deleted".
func changed() (map[string]string, error) {
	found := make(map[string]string)
	for _, dir := range covered {
		lower, upper, _ := layers(dir)
		err := filepath.WalkDir(upper, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name := strings.TrimPrefix(path, upper)
			opaque := make([]byte, 1)
			n, _ := unix.Lgetxattr(path, "trusted.overlay.opaque", opaque)
			if n == 1 && opaque[0] == 'y' { // whatever it covers is gone, too
				covers := make(map[string]string)
				if err := describeTree(covers, name, lower); err != nil {
					return err
				}
				for below := range covers {
					found[dir+below] = "deleted"
				}
			}
			seen, err := describe(dir + name)
			if errors.Is(err, fs.ErrNotExist) {
				seen, err = "deleted", nil
			}
			if err != nil {
				return err
			}
			if was, err := describe(lower + name); err == nil && was == seen ||
				seen == "deleted" && errors.Is(err, fs.ErrNotExist) {
				delete(found, dir+name)
				return nil
			}
			found[dir+name] = seen
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// logs are files that say what happened, and may go on doing so.
var logs = []string{"/var/log/", "/var/lib/dpkg/lock", "/var/lib/dpkg/triggers/Lock"}

// snapshot describes all that an installation might change, but for times: what the
// machine has changed in the covered directories, and all that is in homes.
func (m *machine) snapshot() map[string]string {
	m.t.Helper()
	found, err := changed()
	for _, home := range []string{"/root", "/home"} {
		if err == nil {
			err = describeTree(found, home, "")
		}
	}
	if err != nil {
		m.t.Fatal(err)
	}
	maps.DeleteFunc(found, func(path, _ string) bool {
		return slices.ContainsFunc(logs, func(log string) bool { return strings.HasPrefix(path, log) })
	})
	return found
}

// checkSame fails the test if something is left on the machine, or missing.
func (m *machine) checkSame(when string, before map[string]string) {
	m.t.Helper()
	if diff := differences(before, m.snapshot()); diff != "" {
		m.t.Errorf("%s it is not as it was before:\n%s", when, diff)
	}
}
