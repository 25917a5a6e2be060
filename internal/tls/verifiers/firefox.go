package verifiers

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// findFirefox finds every Firefox: the distribution's, the snap, the flatpak.
//
// It is asked with a profile of its own, which has the trust-relevant part of the
// user's: so one that is running is not disturbed. If it was never started there is
// none, and it is asked with a new one, as its first start would be. Certificates of the
// machine's policies are in that before it opens a page.
func findFirefox(context.Context) []client {
	var clients []client
	for _, program := range firefoxPrograms() {
		switch {
		case snapOf(program) != "":
			dir := snapDir(snapOf(program))
			one := firefox("Firefox (snap)", program, filepath.Join(dir, ".mozilla", "firefox"))
			one.workspace = dir
			clients = append(clients, one)
		default:
			name := "Firefox"
			if filepath.Base(program) == "firefox-esr" {
				name = "Firefox ESR"
			}
			one := firefox(name, program, firefoxRoots()...)
			one.command = atHome(one.command)
			clients = append(clients, one)
		}
	}
	if flatpak := flatpakOf("org.mozilla.firefox"); flatpak != "" {
		home := filepath.Join(os.Getenv("HOME"), ".var", "app", "org.mozilla.firefox")
		one := firefox("Firefox (flatpak)", flatpak, filepath.Join(home, ".mozilla", "firefox"), filepath.Join(home, "config", "mozilla", "firefox"))
		open := one.command
		one.command = func(url, dir string) (command, error) {
			cmd, err := open(url, dir)
			cmd.args = append([]string{"run", "--die-with-parent", "--filesystem=" + dir, "org.mozilla.firefox"}, cmd.args...)
			return cmd, err
		}
		clients = append(clients, one)
	}
	return clients
}

// firefoxPrograms are those outside of a flatpak. On Debian, firefox may be a script
// that starts firefox-esr.
func firefoxPrograms() []string {
	if runtime.GOOS != "linux" {
		return present(brand{app: "Firefox.app/Contents/MacOS/firefox", exe: `Mozilla Firefox\firefox.exe`}.installed())
	}
	plain, esr := onPath("firefox"), onPath("firefox-esr")
	if esr != "" && plain != "" && (sameFile(plain, esr) || strings.Contains(script(plain), "firefox-esr")) {
		plain = ""
	}
	return present(plain, esr)
}

// present are the paths that are not empty.
func present(paths ...string) []string {
	return slices.DeleteFunc(paths, func(path string) bool { return path == "" })
}

// firefoxRoots are the directories that may have a user's profiles.ini. On Linux, the
// first one is no longer made since version 147, and still used if it is there, even
// if it is empty.
func firefoxRoots() []string {
	home := os.Getenv("HOME")
	switch runtime.GOOS {
	case "darwin":
		return []string{filepath.Join(home, "Library", "Application Support", "Firefox")}
	case "windows":
		return []string{filepath.Join(os.Getenv("AppData"), "Mozilla", "Firefox")}
	}
	config := os.Getenv("XDG_CONFIG_HOME")
	if config == "" {
		config = filepath.Join(home, ".config")
	}
	return []string{filepath.Join(home, ".mozilla", "firefox"), filepath.Join(config, "mozilla", "firefox")}
}

func flatpakOf(app string) string {
	for _, dir := range []string{"/var/lib/flatpak", filepath.Join(os.Getenv("HOME"), ".local", "share", "flatpak")} {
		if _, err := os.Stat(filepath.Join(dir, "app", app)); err == nil {
			return onPath("flatpak")
		}
	}
	return ""
}

// firefox is one installation, whose profiles are in the first of these directories
// that is there.
func firefox(name, program string, roots ...string) client {
	profile := ""
	if i := slices.IndexFunc(roots, isDir); i >= 0 {
		profile = defaultProfile(roots[i], program)
	}
	one := client{
		name:    name,
		program: program,
		browser: true,
		stays:   true,
		fix:     always(forUser),
		command: func(url, dir string) (command, error) {
			return openFirefox(url, dir, profile)
		},
	}
	if profile == "" {
		one.note = "it was never started, so a new profile was asked"
		one.fix = always("start it once, then: " + forUser)
	}
	return one
}

func openFirefox(url, dir, profile string) (command, error) {
	own := filepath.Join(dir, "profile")
	if err := copyProfile(profile, own); err != nil {
		return command{}, err
	}
	return command{args: []string{"--headless", "--no-remote", "--profile", own, url}}, nil
}

// atHome gives a Firefox a home of its own, which it would write to: what it trusts is
// in its profile. Snaps and flatpaks have theirs, and where the system's roots are
// no files, they are found by the home.
func atHome(open func(url, dir string) (command, error)) func(url, dir string) (command, error) {
	if runtime.GOOS != "linux" {
		return open
	}
	return func(url, dir string) (command, error) {
		env, _, err := ownHome(dir)
		if err != nil {
			return command{}, err
		}
		cmd, err := open(url, dir)
		cmd.env = env
		return cmd, err
	}
}

// ownPrefs keep the copy from doing anything else than opening one page.
const ownPrefs = `user_pref("network.proxy.type", 0);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("app.normandy.enabled", false);
user_pref("app.update.enabled", false);
user_pref("browser.aboutwelcome.enabled", false);
user_pref("browser.preonboarding.enabled", false);
user_pref("browser.sessionstore.resume_from_crash", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("browser.startup.page", 0);
user_pref("datareporting.healthreport.uploadEnabled", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("dom.security.https_only_mode", false);
user_pref("extensions.update.enabled", false);
user_pref("toolkit.startup.max_resumed_crashes", -1);
user_pref("toolkit.telemetry.reportingpolicy.firstRun", false);
user_pref("trailhead.firstrun.didSeeAboutWelcome", true);
`

// copyProfile makes a profile with the trust of another, or a new one if from is
// empty. Nothing private is in it: no keys, no passwords, no history.
func copyProfile(from, to string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	var prefs []byte
	if from != "" {
		if err := copyDatabase(from, to); err != nil {
			return err
		}
		for _, name := range []string{"prefs.js", "user.js"} { // of which the latter wins
			data, err := os.ReadFile(filepath.Join(from, name))
			if err != nil && !os.IsNotExist(err) {
				return err
			}
			prefs = append(prefs, trustPrefs(data)...)
		}
	}
	return os.WriteFile(filepath.Join(to, "user.js"), append(prefs, ownPrefs...), 0o600)
}

// trustPrefs are the lines of a file of preferences on which it may hang whether a
// certificate is accepted.
func trustPrefs(file []byte) []byte {
	var kept []byte
	for line := range bytes.Lines(file) {
		for _, branch := range []string{"enterprise_roots", "pki", "ssl", "tls", "OCSP", "cert_pinning"} {
			if bytes.HasPrefix(bytes.TrimSpace(line), []byte(`user_pref("security.`+branch+`.`)) {
				kept = append(append(kept, bytes.TrimSpace(line)...), '\n')
			}
		}
	}
	return kept
}

// defaultProfile is the profile that a Firefox opens by itself, of those that the
// profiles.ini in a directory names, or empty if there is none. Since version 67
// each installation has one of its own, under a hash of its path; which one that is
// is told by what a profile says of where it was last used.
func defaultProfile(root, program string) string {
	if real, err := filepath.EvalSymlinks(program); err == nil {
		program = real
	}
	profiles := readINI(filepath.Join(root, "profiles.ini"))
	var installs, others []string
	for _, s := range append(profiles, readINI(filepath.Join(root, "installs.ini"))...) {
		switch {
		case strings.HasPrefix(s.name, "Profile"):
			path := filepath.FromSlash(s.keys["Path"])
			if s.keys["IsRelative"] != "0" {
				path = filepath.Join(root, path)
			}
			if s.keys["Default"] == "1" {
				others = append([]string{path}, others...)
			} else {
				others = append(others, path)
			}
		case s.keys["Default"] != "": // [Install4F96D1932A9F858E], in installs.ini without the word
			path := filepath.FromSlash(s.keys["Default"])
			if !filepath.IsAbs(path) {
				path = filepath.Join(root, path)
			}
			installs = append(installs, path)
		}
	}
	for _, path := range installs {
		for _, s := range readINI(filepath.Join(path, "compatibility.ini")) {
			if s.keys["LastPlatformDir"] == filepath.Dir(program) && isDir(path) {
				return path
			}
		}
	}
	for _, path := range append(installs, others...) {
		if isDir(path) {
			return path
		}
	}
	return ""
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// A section is one of an INI file.
type section struct {
	name string
	keys map[string]string
}

// readINI reads an INI file; one that cannot be read is empty.
func readINI(path string) []section {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return parseINI(string(data))
}

func parseINI(text string) []section {
	var all []section
	for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") && len(line) > 1 {
			all = append(all, section{line[1 : len(line)-1], make(map[string]string)})
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || len(all) == 0 || strings.HasPrefix(line, ";") || strings.HasPrefix(line, "#") {
			continue
		}
		all[len(all)-1].keys[strings.TrimSpace(key)] = strings.TrimSpace(value)
	}
	return all
}
