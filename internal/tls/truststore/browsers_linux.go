package truststore

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// firefoxes are where browsers of Mozilla's kind keep their profiles, below the home directory. Firefox 147 and
// later keep new ones in the place that XDG has for it, unless there are profiles in the old one.
var firefoxes = [...]struct{ dir, name string }{
	{".mozilla/firefox", "Firefox"},
	{".config/mozilla/firefox", "Firefox"},
	{"snap/firefox/common/.mozilla/firefox", "Firefox (snap)"},
	{"snap/firefox/common/.config/mozilla/firefox", "Firefox (snap)"},
	{".var/app/org.mozilla.firefox/.mozilla/firefox", "Firefox (flatpak)"},
	{".var/app/org.mozilla.firefox/config/mozilla/firefox", "Firefox (flatpak)"},
	{".librewolf", "LibreWolf"},
	{".config/librewolf/librewolf", "LibreWolf"},
	{".var/app/io.gitlab.librewolf-community/.librewolf", "LibreWolf (flatpak)"},
	{".waterfox", "Waterfox"},
}

// chromiums are the databases of browsers of Chromium's kind, which share theirs unless they live in a
// container. There are two places: .pki/nssdb, and since Chromium 146 the user's data directory, which it takes
// if there is no .pki/nssdb (measured with 156). Those of a container have both, too.
var chromiums = [...]struct{ dir, name string }{
	{"snap/chromium/current", "Chromium (snap)"},
	{"snap/brave/current", "Brave (snap)"},
	{".var/app/org.chromium.Chromium", "Chromium (flatpak)"},
	{".var/app/io.github.ungoogled_software.ungoogled_chromium", "Chromium (flatpak)"},
	{".var/app/com.google.Chrome", "Chrome (flatpak)"},
	{".var/app/com.brave.Browser", "Brave (flatpak)"},
	{".var/app/com.microsoft.Edge", "Edge (flatpak)"},
	{".var/app/com.vivaldi.Vivaldi", "Vivaldi (flatpak)"},
}

// chromiumPrograms are the browsers that have one database in common.
var chromiumPrograms = [...]string{
	"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "brave-browser", "microsoft-edge", "vivaldi",
}

const chromiumReaders = "Chromium, Chrome, Brave, Edge, Vivaldi"

// findNSS returns the databases of the user's browsers, and the one that Chromium will make if it is there
// and has none yet.
func (s *Stores) findNSS() []store {
	var stores []store
	// Links lead to the same one.
	seen := make(map[string]bool)
	add := func(dir, readers string) {
		real, err := filepath.EvalSymlinks(dir)
		if err != nil || seen[real] {
			return
		}
		if _, err := os.Stat(filepath.Join(dir, nssFiles[0])); err != nil {
			return
		}
		seen[real] = true
		stores = append(stores, s.nss(dir, readers))
	}
	for _, dir := range s.chromiumDirs() {
		add(dir, chromiumReaders)
	}
	if len(stores) == 0 && s.hasChromium() {
		stores = append(stores, s.nss(s.newChromium(), chromiumReaders))
	}
	for _, c := range chromiums {
		for _, dir := range []string{".pki/nssdb", ".local/share/pki/nssdb", "data/pki/nssdb"} {
			add(filepath.Join(s.Home, c.dir, dir), c.name)
		}
	}
	for _, f := range s.firefoxDirs() {
		profiles, err := profiles(f.dir)
		if err != nil {
			stores = append(stores, unreadable{Place{Kind: NSS, Path: filepath.Join(f.dir, profilesList), Scope: User, Readers: f.name}, err})
		}
		for _, dir := range profiles {
			add(dir, f.name+", profile "+filepath.Base(dir))
		}
	}
	return stores
}

// An unreadable is a list of profiles that cannot be read, and so a place that nothing is known of.
type unreadable struct {
	list Place
	err  error
}

func (u unreadable) place() Place { return u.list }

func (u unreadable) look(context.Context, *x509.Certificate) (presence, error) {
	return absent, fmt.Errorf("which profiles there are cannot be read: %w", u.err)
}

func (u unreadable) ready(context.Context, Action, *x509.Certificate) error { return u.err }
func (u unreadable) add(context.Context, *x509.Certificate) error           { return u.err }
func (u unreadable) remove(context.Context, *x509.Certificate) error        { return u.err }

func (s *Stores) nss(dir, readers string) *nssStore {
	return &nssStore{dir: dir, readers: readers, programs: s.program()}
}

// chromiumDirs are the two places of a database, the preferred one first.
func (s *Stores) chromiumDirs() []string {
	data := s.getenv("XDG_DATA_HOME")
	if !filepath.IsAbs(data) {
		data = filepath.Join(s.Home, ".local/share")
	}
	return []string{filepath.Join(s.Home, ".pki/nssdb"), filepath.Join(data, "pki/nssdb")}
}

func (s *Stores) hasChromium() bool {
	return slices.ContainsFunc(chromiumPrograms[:], func(name string) bool {
		_, err := s.program().find(name)
		return err == nil
	})
}

// newChromium is where Chromium will make its database.
func (s *Stores) newChromium() string {
	dirs := s.chromiumDirs()
	if info, err := os.Stat(dirs[0]); err == nil && info.IsDir() {
		return dirs[0]
	}
	return dirs[1]
}

type firefoxDir struct{ dir, name string }

func (s *Stores) firefoxDirs() []firefoxDir {
	var dirs []firefoxDir
	for _, f := range firefoxes {
		dirs = append(dirs, firefoxDir{filepath.Join(s.Home, f.dir), f.name})
	}
	if config := s.getenv("XDG_CONFIG_HOME"); filepath.IsAbs(config) {
		dirs = append(dirs, firefoxDir{filepath.Join(config, "mozilla/firefox"), "Firefox"})
	}
	return dirs
}

// profilesList is the file in which Firefox keeps what profiles there are.
const profilesList = "profiles.ini"

// profiles are the directories of profiles: those that the list names, which may be anywhere, and those
// beside it that are on no list any more, or on that of another Firefox. With an error, which is that
// the list cannot be read, there are the others.
func profiles(dir string) ([]string, error) {
	data, err := os.ReadFile(filepath.Join(dir, profilesList))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		err = nil
	}
	paths := parseProfiles(dir, string(data))
	for _, pattern := range []string{"*", "Profiles/*"} {
		// The pattern is a good one, so that there is no error.
		found, _ := filepath.Glob(filepath.Join(globQuote(dir), pattern, nssFiles[0]))
		for _, path := range found {
			paths = append(paths, filepath.Dir(path))
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths), err
}

// parseProfiles reads Firefox's profiles.ini, which lies in dir: a section for each profile, with its path,
// relative or not.
func parseProfiles(dir, data string) []string {
	var paths []string
	var path string
	relative, profile := true, false
	end := func() {
		if path != "" && profile {
			if relative {
				path = filepath.Join(dir, path)
			}
			if filepath.IsAbs(path) {
				paths = append(paths, filepath.Clean(path))
			}
		}
		path, relative = "", true
	}
	for line := range strings.Lines(data) {
		line = strings.TrimSpace(line)
		if section, ok := strings.CutPrefix(line, "["); ok {
			end()
			profile = strings.HasPrefix(section, "Profile")
			continue
		}
		switch key, value, _ := strings.Cut(line, "="); key {
		case "Path":
			path = value
		case "IsRelative":
			relative = value != "0"
		}
	}
	end()
	return paths
}
