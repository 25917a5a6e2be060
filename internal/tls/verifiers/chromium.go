package verifiers

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// A brand is a browser under one of its names.
type brand struct {
	name string
	// programs are what it is called on Linux, app on macOS, and exe on Windows, below one
	// of the directories for programs.
	programs []string
	app, exe string
}

func brands() []brand {
	return []brand{
		{"Chromium", []string{"chromium", "chromium-browser"}, "Chromium.app/Contents/MacOS/Chromium", `Chromium\Application\chrome.exe`},
		{"Google Chrome", []string{"google-chrome-stable", "google-chrome"}, "Google Chrome.app/Contents/MacOS/Google Chrome", `Google\Chrome\Application\chrome.exe`},
		{"Brave", []string{"brave-browser", "brave-browser-stable", "brave"}, "Brave Browser.app/Contents/MacOS/Brave Browser", `BraveSoftware\Brave-Browser\Application\brave.exe`},
		{"Microsoft Edge", []string{"microsoft-edge-stable", "microsoft-edge"}, "Microsoft Edge.app/Contents/MacOS/Microsoft Edge", `Microsoft\Edge\Application\msedge.exe`},
	}
}

// installed finds a browser's program in the places of this system.
func (b brand) installed() string {
	var paths []string
	switch runtime.GOOS {
	case "darwin":
		for _, dir := range []string{"/Applications", filepath.Join(os.Getenv("HOME"), "Applications")} {
			paths = append(paths, filepath.Join(dir, b.app))
		}
	case "windows":
		for _, dir := range []string{"ProgramFiles", "ProgramFiles(x86)", "LocalAppData"} {
			paths = append(paths, filepath.Join(os.Getenv(dir), b.exe))
		}
	default:
		return onPath(b.programs...)
	}
	return onPath(paths...)
}

// findChromium finds Chromium and what is made of it. They keep their roots in the
// system's store, and on Linux in an NSS database below the home directory, whose
// place they find by the environment.
func findChromium(context.Context) []client {
	var clients []client
	for _, b := range brands() {
		program := b.installed()
		if program == "" {
			continue
		}
		one := client{
			name:    b.name,
			program: program,
			browser: true,
			command: openChromium,
			telling: []string{"net_error", ":FATAL:"},
			fix:     always(forUser),
		}
		if snap := snapOf(program); snap != "" {
			one.name += " (snap)"
			one.workspace = snapDir(snap)
			one.command = openSnapChromium
		}
		clients = append(clients, one)
	}
	return clients
}

// openChromium has it open a page in a home of its own. In the user's it would write
// a database, if there is none, and reports of crashes.
func openChromium(url, dir string) (command, error) {
	cmd := command{args: chromiumArgs(url, dir)}
	if runtime.GOOS != "linux" {
		return cmd, nil
	}
	env, home, err := ownHome(dir)
	if err != nil {
		return command{}, err
	}
	cmd.env = env
	if len(dir)+len("/tmp/org.chromium.Chromium.abcdef/SingletonSocket") > socketPath {
		cmd.env = append(cmd.env, "TMPDIR=/tmp") // from which it takes it away itself
	}
	return cmd, copyNSS(home)
}

// socketPath is how long the path of a socket may be on Linux; Chromium does not start
// if it cannot make the one by which it would find itself running.
const socketPath = 107

// openSnapChromium leaves the home alone, which a snap has of its own, and in which its
// database is. Only its profile is another one, and in a place that it can see.
func openSnapChromium(url, dir string) (command, error) {
	return command{args: chromiumArgs(url, dir)}, nil
}

func chromiumArgs(url, dir string) []string {
	args := []string{
		"--headless", "--disable-gpu", "--no-first-run", "--no-default-browser-check",
		"--disable-quic", "--no-proxy-server", "--disable-extensions", "--disable-sync",
		"--disable-background-networking", "--disable-component-update", "--disable-breakpad",
		"--password-store=basic", "--use-mock-keychain", // those are for passwords, and may ask for one
		"--user-data-dir=" + filepath.Join(dir, "profile"),
		"--dump-dom", url,
	}
	if runtime.GOOS == "linux" && os.Geteuid() == 0 {
		args = append([]string{"--no-sandbox"}, args...) // it would not start
	}
	return args
}

// ownHome makes a home directory in dir, and the environment that has a program use
// it for all that it writes.
func ownHome(dir string) (env []string, home string, err error) {
	home = filepath.Join(dir, "home")
	env = []string{"HOME=" + home}
	for _, v := range []struct{ name, path string }{
		{"XDG_CONFIG_HOME", "home/.config"},
		{"XDG_CACHE_HOME", "home/.cache"},
		{"XDG_DATA_HOME", "home/.local/share"},
		{"XDG_STATE_HOME", "home/.local/state"},
		{"TMPDIR", "tmp"},
	} {
		path := filepath.Join(dir, v.path)
		if err := os.MkdirAll(path, 0o700); err != nil {
			return nil, "", err
		}
		env = append(env, v.name+"="+path)
	}
	return env, home, nil
}

// copyNSS copies the databases that Chromium may use, each to its own place, so that
// it makes the choice that it always makes: the older one if there is one.
func copyNSS(home string) error {
	user := os.Getenv("HOME")
	data := os.Getenv("XDG_DATA_HOME")
	if data == "" {
		data = filepath.Join(user, ".local", "share")
	}
	for from, to := range map[string]string{
		filepath.Join(user, ".pki", "nssdb"): filepath.Join(home, ".pki", "nssdb"),
		filepath.Join(data, "pki", "nssdb"):  filepath.Join(home, ".local", "share", "pki", "nssdb"),
	} {
		if err := copyDatabase(from, to); err != nil {
			return err
		}
	}
	return nil
}

// copyDatabase copies what an NSS database says of trust, with the modules that it
// names, if there is one. Its keys are not copied: without them, NSS makes new ones
// and takes what the database says. A copy that is made while somebody writes has
// the journal by which SQLite mends it.
func copyDatabase(from, to string) error {
	if _, err := os.Stat(from); err != nil {
		return nil
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	for _, name := range []string{"cert9.db", "cert9.db-journal", "pkcs11.txt"} {
		data, err := os.ReadFile(filepath.Join(from, name))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// snapOf is the name of the snap that a program belongs to, or empty. What a
// distribution installs under the old name of a browser that has become a snap is a
// script that starts the snap.
func snapOf(program string) string {
	const bin = "/snap/bin/"
	if name, ok := strings.CutPrefix(program, bin); ok {
		return name
	}
	_, rest, ok := strings.Cut(script(program), bin)
	if !ok {
		return ""
	}
	end := strings.IndexFunc(rest, func(r rune) bool { return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-", r) })
	if end < 0 {
		end = len(rest)
	}
	return rest[:end]
}

// script is the beginning of a program that is a script, and else empty.
func script(program string) string {
	f, err := os.Open(program)
	if err != nil {
		return ""
	}
	defer f.Close()
	start := make([]byte, 4<<10)
	n, _ := io.ReadFull(f, start)
	if !bytes.HasPrefix(start, []byte("#!")) {
		return ""
	}
	return string(start[:n])
}

// snapDir is where a snap can see files that others write: it has a /tmp of its own.
// It is there once the snap was started.
func snapDir(snap string) string {
	return filepath.Join(os.Getenv("HOME"), "snap", snap, "common")
}
