package dnsmasqconf

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/tunneld/tunneld/internal/osdns/machine"
)

// A Conf is what a dnsmasq has been told that matters to us.
type Conf struct {
	Dirs    []Dir
	Servers string // its servers-file
	// Rebind: it drops answers with addresses of this machine, unless RebindLocal.
	Rebind, RebindLocal bool
}

// A Dir is a directory of configuration files, with what their names have to
// end in, or must not.
type Dir struct {
	Path       string
	only, none []string
}

// parseDir reads "DIR[,.bak][,*.conf]".
func parseDir(value string) Dir {
	words := strings.Split(value, ",")
	c := Dir{Path: filepath.Clean(strings.TrimSpace(words[0]))}
	for _, w := range words[1:] {
		w = strings.TrimSpace(w)
		if end, ok := strings.CutPrefix(w, "*"); ok {
			c.only = append(c.only, end)
		} else if w != "" {
			c.none = append(c.none, w)
		}
	}
	return c
}

// Reads reports whether a file of that name in the directory is read.
func (c Dir) Reads(name string) bool {
	ends := func(end string) bool { return strings.HasSuffix(name, end) }
	hidden := strings.HasPrefix(name, ".") || strings.HasPrefix(name, "#") || strings.HasSuffix(name, "~")
	return !hidden && !slices.ContainsFunc(c.none, ends) && (len(c.only) == 0 || slices.ContainsFunc(c.only, ends))
}

const (
	// Default is the file that is read if no other is named.
	Default = "/etc/dnsmasq.conf"
	// Ours is what our file among the configuration is called. What is in it does
	// not count here.
	Ours = "tunneld.conf"
)

// short are the options that matter and have a short name.
var short = map[string]string{"-7": "conf-dir", "-C": "conf-file"}

// Read reads what a dnsmasq with these arguments has read, but for files of ours.
func Read(s machine.System, args []string) (Conf, error) {
	var c Conf
	var files []string
	for i := 1; i < len(args); i++ {
		name, value, has := strings.Cut(args[i], "=")
		if long, ok := short[name]; ok && !has {
			name = "--" + long
		}
		name, ok := strings.CutPrefix(name, "--")
		if !ok {
			continue
		}
		if (name == "conf-dir" || name == "conf-file" || name == "servers-file") && !has && i+1 < len(args) {
			i++
			value = args[i]
		}
		if name == "conf-file" {
			files = append(files, value)
			continue
		}
		c.take(name, value, &files)
	}
	if len(files) == 0 || !slices.ContainsFunc(args, isConfFile) {
		files = append(files, Default)
	}
	return c, c.readFiles(s, files)
}

func isConfFile(arg string) bool {
	return arg == "-C" || arg == "--conf-file" || strings.HasPrefix(arg, "--conf-file=")
}

// readFiles reads configuration files, and those that they lead to.
func (c *Conf) readFiles(s machine.System, files []string) error {
	seen := make(map[string]bool)
	dirs := 0
	for {
		for _, dir := range c.Dirs[dirs:] {
			entries, err := s.ReadDir(dir.Path)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			for _, e := range entries {
				if dir.Reads(e.Name()) && e.Name() != Ours {
					files = append(files, filepath.Join(dir.Path, e.Name()))
				}
			}
		}
		dirs = len(c.Dirs)
		if len(files) == 0 {
			return nil
		}
		path := files[0]
		files = files[1:]
		if path == "" || seen[path] {
			continue
		}
		seen[path] = true
		data, err := s.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.EISDIR) {
			return err
		}
		c.parse(data, &files)
	}
}

// parse reads one file; those that it leads to are added to files.
func (c *Conf) parse(data []byte, files *[]string) {
	for line := range strings.Lines(string(data)) {
		if i := strings.IndexByte(line, '#'); i == 0 || i > 0 && (line[i-1] == ' ' || line[i-1] == '\t') {
			line = line[:i]
		}
		name, value, _ := strings.Cut(line, "=")
		c.take(strings.TrimSpace(name), strings.Trim(strings.TrimSpace(value), `"`), files)
	}
}

// take takes one option.
func (c *Conf) take(name, value string, files *[]string) {
	switch name {
	case "conf-dir":
		c.Dirs = append(c.Dirs, parseDir(value))
	case "conf-file":
		*files = append(*files, value)
	case "servers-file":
		c.Servers = value
	case "stop-dns-rebind":
		c.Rebind = true
	case "rebind-localhost-ok":
		c.RebindLocal = true
	}
}
