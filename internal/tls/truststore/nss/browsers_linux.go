package nss

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

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/internal/tls/truststore/place"
	"github.com/tunneld/tunneld/internal/tls/truststore/program"
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

// Browsers are those of one user.
type Browsers struct {
	// Home is the user's home directory.
	Home string
	// Getenv is os.Getenv or like it: XDG_DATA_HOME and XDG_CONFIG_HOME say where databases are.
	Getenv   func(string) string
	Programs program.Programs
}

// Find returns the databases of the user's browsers, and the one that Chromium will make if it is there
// and has none yet.
func (b Browsers) Find() []place.Store {
	var stores []place.Store
	// Links lead to the same one.
	seen := make(map[string]bool)
	add := func(dir, readers string) {
		real, err := filepath.EvalSymlinks(dir)
		if err != nil || seen[real] {
			return
		}
		if _, err := os.Stat(filepath.Join(dir, files[0])); err != nil {
			return
		}
		seen[real] = true
		stores = append(stores, b.database(dir, readers))
	}
	for _, dir := range b.chromiumDirs() {
		add(dir, chromiumReaders)
	}
	if len(stores) == 0 && b.hasChromium() {
		stores = append(stores, b.database(b.newChromium(), chromiumReaders))
	}
	for _, c := range chromiums {
		for _, dir := range []string{".pki/nssdb", ".local/share/pki/nssdb", "data/pki/nssdb"} {
			add(filepath.Join(b.Home, c.dir, dir), c.name)
		}
	}
	for _, f := range b.firefoxDirs() {
		profiles, err := profiles(f.dir)
		if err != nil {
			stores = append(stores, unreadable{place.Place{Kind: place.NSS, Path: filepath.Join(f.dir, profilesList), Scope: place.User, Readers: f.name}, err})
		}
		for _, dir := range profiles {
			add(dir, f.name+", profile "+filepath.Base(dir))
		}
	}
	return stores
}

// An unreadable is a list of profiles that cannot be read, and so a place that nothing is known of.
type unreadable struct {
	list place.Place
	err  error
}

func (u unreadable) Place() place.Place { return u.list }

func (u unreadable) Look(context.Context, *x509.Certificate) (place.Presence, error) {
	return place.Absent, fmt.Errorf("which profiles there are cannot be read: %w", u.err)
}

func (u unreadable) Ready(context.Context, place.Action, *x509.Certificate) error { return u.err }
func (u unreadable) Add(context.Context, *x509.Certificate) error                 { return u.err }
func (u unreadable) Remove(context.Context, *x509.Certificate) error              { return u.err }

// At returns the database at a place that a receipt or a step names, whether it is there or not.
func (b Browsers) At(p place.Place) (place.Store, error) {
	if filepath.Base(p.Path) == profilesList {
		return nil, fmt.Errorf("%s is no database", p.Path)
	}
	return b.database(p.Path, p.Readers), nil
}

func (b Browsers) database(dir, readers string) *database {
	return &database{dir: dir, readers: readers, programs: b.Programs}
}

// chromiumDirs are the two places of a database, the preferred one first.
func (b Browsers) chromiumDirs() []string {
	data := b.Getenv("XDG_DATA_HOME")
	if !filepath.IsAbs(data) {
		data = filepath.Join(b.Home, ".local/share")
	}
	return []string{filepath.Join(b.Home, ".pki/nssdb"), filepath.Join(data, "pki/nssdb")}
}

func (b Browsers) hasChromium() bool {
	return slices.ContainsFunc(chromiumPrograms[:], func(name string) bool {
		_, err := b.Programs.Find(name)
		return err == nil
	})
}

// newChromium is where Chromium will make its database.
func (b Browsers) newChromium() string {
	dirs := b.chromiumDirs()
	if info, err := os.Stat(dirs[0]); err == nil && info.IsDir() {
		return dirs[0]
	}
	return dirs[1]
}

type firefoxDir struct{ dir, name string }

func (b Browsers) firefoxDirs() []firefoxDir {
	var dirs []firefoxDir
	for _, f := range firefoxes {
		dirs = append(dirs, firefoxDir{filepath.Join(b.Home, f.dir), f.name})
	}
	if config := b.Getenv("XDG_CONFIG_HOME"); filepath.IsAbs(config) {
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
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.ENOTDIR) {
		err = nil
	}
	paths := parseProfiles(dir, string(data))
	for _, pattern := range []string{"*", "Profiles/*"} {
		// The pattern is a good one, so that there is no error.
		found, _ := filepath.Glob(filepath.Join(place.GlobQuote(dir), pattern, files[0]))
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
