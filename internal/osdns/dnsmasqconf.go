package osdns

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/tunneld/tunneld/internal/osdns/machine"
)

// dnsmasqConf is what a dnsmasq has been told that matters to us.
type dnsmasqConf struct {
	dirs    []confDir
	servers string // its servers-file
	// rebind: it drops answers with addresses of this machine.
	rebind, rebindLocal bool
}

// A confDir is a directory of configuration files, with what their names have to
// end in, or must not.
type confDir struct {
	path       string
	only, none []string
}

// parseConfDir reads "DIR[,.bak][,*.conf]".
func parseConfDir(value string) confDir {
	words := strings.Split(value, ",")
	c := confDir{path: filepath.Clean(strings.TrimSpace(words[0]))}
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

func (c confDir) reads(name string) bool {
	ends := func(end string) bool { return strings.HasSuffix(name, end) }
	hidden := strings.HasPrefix(name, ".") || strings.HasPrefix(name, "#") || strings.HasSuffix(name, "~")
	return !hidden && !slices.ContainsFunc(c.none, ends) && (len(c.only) == 0 || slices.ContainsFunc(c.only, ends))
}

const dnsmasqDefault = "/etc/dnsmasq.conf"

// dnsmasqShort are the options that matter and have a short name.
var dnsmasqShort = map[string]string{"-7": "conf-dir", "-C": "conf-file"}

// readDnsmasqConf reads what a dnsmasq with these arguments has read, but for files
// of ours.
func readDnsmasqConf(s machine.System, args []string) (dnsmasqConf, error) {
	var c dnsmasqConf
	var files []string
	for i := 1; i < len(args); i++ {
		name, value, has := strings.Cut(args[i], "=")
		if long, ok := dnsmasqShort[name]; ok && !has {
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
		files = append(files, dnsmasqDefault)
	}
	return c, c.readFiles(s, files)
}

func isConfFile(arg string) bool {
	return arg == "-C" || arg == "--conf-file" || strings.HasPrefix(arg, "--conf-file=")
}

// readFiles reads configuration files, and those that they lead to.
func (c *dnsmasqConf) readFiles(s machine.System, files []string) error {
	seen := make(map[string]bool)
	dirs := 0
	for {
		for _, dir := range c.dirs[dirs:] {
			entries, err := s.ReadDir(dir.path)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			for _, e := range entries {
				if dir.reads(e.Name()) && e.Name() != dnsmasqFile {
					files = append(files, filepath.Join(dir.path, e.Name()))
				}
			}
		}
		dirs = len(c.dirs)
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
func (c *dnsmasqConf) parse(data []byte, files *[]string) {
	for line := range strings.Lines(string(data)) {
		if i := strings.IndexByte(line, '#'); i == 0 || i > 0 && (line[i-1] == ' ' || line[i-1] == '\t') {
			line = line[:i]
		}
		name, value, _ := strings.Cut(line, "=")
		c.take(strings.TrimSpace(name), strings.Trim(strings.TrimSpace(value), `"`), files)
	}
}

// take takes one option.
func (c *dnsmasqConf) take(name, value string, files *[]string) {
	switch name {
	case "conf-dir":
		c.dirs = append(c.dirs, parseConfDir(value))
	case "conf-file":
		*files = append(*files, value)
	case "servers-file":
		c.servers = value
	case "stop-dns-rebind":
		c.rebind = true
	case "rebind-localhost-ok":
		c.rebindLocal = true
	}
}
