package keychain

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/tls/truststore/place"
	"github.com/tunneld/tunneld/internal/tls/truststore/program"
	"github.com/tunneld/tunneld/internal/tls/truststore/storetest"
)

// A playedSecurity plays macOS's program security, with what it works on. What it takes,
// prints and returns follows the source of it that Apple publishes (SecurityTool/macOS,
// as of macOS 11 and later), and its manual page; none of it was recorded on a Mac.
type playedSecurity struct {
	t *testing.T
	// keychains have certificates as DER, by path.
	keychains map[string][][]byte
	// settings are trust settings: by domain and by the certificate's SHA-1, the XML
	// of an array. A domain is missing until something is set in it.
	settings map[string]map[string]string
	// dialog answers for the user; nil: with the password.
	dialog func() error
	// before, if it is set, is called before each change.
	before func()
	// hang is the command line that does not end in time.
	hang string
	// runs are the command lines, with FILE for a file of the caller's.
	runs []string
	// env is that of the last one.
	env []string
}

const userLogin = "/Users/ada/" + loginKeychain

func playSecurity(t *testing.T) *playedSecurity {
	return &playedSecurity{
		t:         t,
		keychains: map[string][][]byte{userLogin: nil, systemKeychain: nil},
		settings:  map[string]map[string]string{"system": {}},
	}
}

func (p *playedSecurity) keychain(scope place.Scope) keychain {
	k := keychain{scope: place.Machine, path: systemKeychain, programs: program.Programs{
		Find: func(name string) (string, error) { return "/usr/bin/" + name, nil },
		Run:  p.run,
	}, exists: func(path string) bool {
		_, ok := p.keychains[path]
		return ok
	}}
	if scope == place.User {
		k.scope, k.path, k.home = place.User, userLogin, "/Users/ada"
	}
	return k
}

// state is what can be compared with what is later.
func (p *playedSecurity) state() any {
	settings := map[string]map[string]string{}
	for domain, s := range p.settings {
		if len(s) > 0 { // once there were some, an empty list stays
			settings[domain] = maps.Clone(s)
		}
	}
	keychains := map[string][][]byte{}
	for path, certs := range p.keychains {
		keychains[path] = append([][]byte{}, certs...)
	}
	return []any{keychains, settings}
}

// errTooLate is the end of a program that has done what it should by then.
var errTooLate = fmt.Errorf("security has not ended within 3m0s: %w", context.DeadlineExceeded)

// errExit is what a program that failed gives: the tool says why in the user's language.
var errExit = errors.New("exit status 1")

func (p *playedSecurity) run(ctx context.Context, c program.Command) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p.env = c.Env
	args := slices.Clone(c.Args)
	for i, arg := range args {
		if strings.Contains(arg, "tunneld-trust-") {
			args[i] = "FILE"
		}
	}
	line := strings.Join(args, " ")
	p.runs = append(p.runs, line)
	if line == p.hang {
		return nil, context.DeadlineExceeded
	}
	if c.Path != "/usr/bin/security" || c.Limit == 0 {
		p.t.Errorf("%s is run, for at most %v", c.Path, c.Limit)
	}
	withValue := map[string][]string{"add-trusted-cert": {"-r", "-p", "-k"}, "delete-certificate": {"-Z"}}[c.Args[0]]
	options, rest := map[string][]string{}, c.Args[1:]
	for len(rest) > 0 && strings.HasPrefix(rest[0], "-") {
		option := rest[0]
		options[option], rest = append(options[option], ""), rest[1:]
		if slices.Contains(withValue, option) && len(rest) > 0 {
			options[option][len(options[option])-1], rest = rest[0], rest[1:]
		}
	}
	if len(rest) != 1 {
		p.t.Errorf("%q is not one argument", rest)
		return nil, errExit
	}
	domain := "user"
	if _, ok := options["-d"]; ok {
		domain = "admin"
	} else if _, ok := options["-s"]; ok {
		domain = "system"
	}
	switch c.Args[0] {
	case "find-certificate":
		return p.find(rest[0])
	case "add-trusted-cert":
		return nil, p.addTrusted(domain, options, rest[0])
	case "remove-trusted-cert":
		return nil, p.untrust(domain, rest[0])
	case "delete-certificate":
		return nil, p.delete(options["-Z"][0], rest[0])
	case "trust-settings-export":
		return nil, p.export(domain, rest[0])
	}
	p.t.Errorf("security knows no %s", c.Args[0])
	return nil, errExit
}

func (p *playedSecurity) change() {
	if p.before != nil {
		p.before()
	}
}

func (p *playedSecurity) ask() error {
	if p.dialog == nil {
		return nil
	}
	return p.dialog()
}

func (p *playedSecurity) find(path string) ([]byte, error) {
	certs, ok := p.keychains[path]
	if !ok {
		return nil, errExit
	}
	var out bytes.Buffer
	for _, der := range certs {
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	return out.Bytes(), nil
}

func (p *playedSecurity) read(file string) []byte {
	data, err := os.ReadFile(file)
	if err != nil {
		p.t.Error(err)
	}
	block, _ := pem.Decode(data)
	return block.Bytes
}

func appleHash(der []byte) string {
	sum := sha1.Sum(der)
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}

func (p *playedSecurity) addTrusted(domain string, options map[string][]string, file string) error {
	der, path := p.read(file), options["-k"][0]
	if !slices.ContainsFunc(p.keychains[path], func(c []byte) bool { return bytes.Equal(c, der) }) {
		p.change()
		p.keychains[path] = append(p.keychains[path], der)
	}
	answer := p.ask()
	if answer != nil && !errors.Is(answer, errTooLate) {
		return answer
	}
	policies := map[string][2]string{"ssl": {"KoZIhvdjZAED", "sslServer"}, "basic": {"KoZIhvdjZAEC", "basicX509"}}
	array := "<array>"
	for _, policy := range options["-p"] {
		array += fmt.Sprintf(`
				<dict>
					<key>kSecTrustSettingsPolicy</key>
					<data>
					%s
					</data>
					<key>kSecTrustSettingsPolicyName</key>
					<string>%s</string>
				</dict>`, policies[policy][0], policies[policy][1])
	}
	p.change()
	if p.settings[domain] == nil {
		p.settings[domain] = map[string]string{}
	}
	p.settings[domain][appleHash(der)] = array + "\n\t\t\t</array>"
	return answer
}

func (p *playedSecurity) untrust(domain, file string) error {
	hash := appleHash(p.read(file))
	if _, ok := p.settings[domain][hash]; !ok {
		return errExit // "The specified item could not be found in the keychain.", or "No Trust Settings were found."
	}
	if err := p.ask(); err != nil {
		return err
	}
	p.change()
	delete(p.settings[domain], hash)
	return nil
}

func (p *playedSecurity) delete(hash, path string) error {
	i := slices.IndexFunc(p.keychains[path], func(der []byte) bool {
		cert, err := x509.ParseCertificate(der)
		return err == nil && strings.ToUpper(place.Fingerprint(cert)) == hash
	})
	if i < 0 {
		return errExit // "Unable to delete certificate matching"
	}
	p.change()
	p.keychains[path] = slices.Delete(slices.Clone(p.keychains[path]), i, i+1)
	return nil
}

func (p *playedSecurity) export(domain, file string) error {
	settings, ok := p.settings[domain]
	if !ok {
		return errExit // "No Trust Settings were found."
	}
	return os.WriteFile(file, []byte(exportedSettings(settings)), 0o600)
}

func exportedSettings(settings map[string]string) string {
	list := ""
	for hash, array := range settings {
		list += fmt.Sprintf(`
		<key>%s</key>
		<dict>
			<key>issuerName</key>
			<data>
			MAA=
			</data>
			<key>modDate</key>
			<date>2026-11-26T01:02:03Z</date>
			<key>serialNumber</key>
			<data>
			AQ==
			</data>
			<key>trustSettings</key>
			%s
		</dict>`, hash, array)
	}
	return `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>trustList</key>
	<dict>` + list + `
	</dict>
	<key>trustVersion</key>
	<integer>1</integer>
</dict>
</plist>
`
}

func TestKeychain(t *testing.T) {
	for _, test := range []struct {
		scope       place.Scope
		add, remove []string
		env         []string
	}{
		{place.User, []string{
			"find-certificate -a -p /Users/ada/Library/Keychains/login.keychain-db",
			"add-trusted-cert -r trustRoot -p ssl -p basic -k /Users/ada/Library/Keychains/login.keychain-db FILE",
		}, []string{
			"trust-settings-export FILE",
			"remove-trusted-cert FILE",
			"find-certificate -a -p /Users/ada/Library/Keychains/login.keychain-db",
			"delete-certificate -Z SHA256 /Users/ada/Library/Keychains/login.keychain-db",
		}, []string{"HOME=/Users/ada"}},
		{place.Machine, []string{
			"find-certificate -a -p /Library/Keychains/System.keychain",
			"add-trusted-cert -d -r trustRoot -p ssl -p basic -k /Library/Keychains/System.keychain FILE",
		}, []string{
			"trust-settings-export -d FILE",
			"remove-trusted-cert -d FILE",
			"find-certificate -a -p /Library/Keychains/System.keychain",
			"delete-certificate -Z SHA256 /Library/Keychains/System.keychain",
		}, nil},
	} {
		t.Run(string(test.scope), func(t *testing.T) {
			mac := playSecurity(t)
			k := mac.keychain(test.scope)
			ours, others := storetest.Root(t, "tunneld local CA"), storetest.Root(t, "tunneld local CA") // of the same name
			storetest.WantPresence(t, "nothing set yet", k, ours, place.Absent)
			if err := k.Add(t.Context(), others); err != nil {
				t.Fatal(err)
			}
			before := mac.state()
			mac.runs = nil
			if err := k.Add(t.Context(), ours); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.add, mac.runs); diff != "" {
				t.Errorf("to add (-want +got):\n%s", diff)
			}
			if !slices.Equal(mac.env, test.env) {
				t.Errorf("with %q in the environment; want %q", mac.env, test.env)
			}
			storetest.WantPresence(t, "added", k, ours, place.Present)
			storetest.WantPresence(t, "the other one", k, others, place.Present)
			storetest.WantSearch(t, k, ours)
			mac.runs = nil
			if err := k.Remove(t.Context(), ours); err != nil {
				t.Fatal(err)
			}
			hash := strings.ToUpper(place.Fingerprint(ours))
			for i := range mac.runs {
				mac.runs[i] = strings.Replace(mac.runs[i], hash, "SHA256", 1)
			}
			if diff := cmp.Diff(test.remove, mac.runs); diff != "" {
				t.Errorf("to remove (-want +got):\n%s", diff)
			}
			storetest.WantPresence(t, "removed", k, ours, place.Absent)
			if diff := cmp.Diff(before, mac.state()); diff != "" {
				t.Errorf("afterwards (-before +after):\n%s", diff)
			}
			if err := k.Remove(t.Context(), ours); err != nil {
				t.Errorf("removed again: %v", err)
			}
		})
	}
}

// Who says no, or is not asked, gets nothing, and loses nothing.
func TestKeychainNotAllowed(t *testing.T) {
	hung := fmt.Errorf("security has not ended within 3m0s: %w", context.DeadlineExceeded)
	for _, test := range []struct {
		name   string
		answer error
		says   string
	}{
		{"declined", errExit, "over SSH"},
		{"hung", hung, "not answered"},
	} {
		t.Run(test.name, func(t *testing.T) {
			mac := playSecurity(t)
			k, cert := mac.keychain(place.User), storetest.Root(t, "tunneld local CA")
			no := func() error { return test.answer }
			before := mac.state()
			check := func(what string, err error) {
				t.Helper()
				if !errors.Is(err, test.answer) || !strings.Contains(err.Error(), test.says) {
					t.Errorf("%s: %v; want %v, and %q", what, err, test.answer, test.says)
				}
			}
			mac.dialog = no
			check("add", k.Add(t.Context(), cert))
			if diff := cmp.Diff(before, mac.state()); diff != "" {
				t.Errorf("not added (-before +after):\n%s", diff)
			}

			// A certificate that somebody keeps there, and does not trust, stays.
			mac.keychains[userLogin] = [][]byte{cert.Raw}
			before = mac.state()
			storetest.WantPresence(t, "kept", k, cert, place.Partly)
			check("add what was kept", k.Add(t.Context(), cert))
			if diff := cmp.Diff(before, mac.state()); diff != "" {
				t.Errorf("not added (-before +after):\n%s", diff)
			}

			mac.dialog = nil
			if err := k.Add(t.Context(), cert); err != nil {
				t.Fatal(err)
			}
			before = mac.state()
			mac.dialog = no
			check("remove", k.Remove(t.Context(), cert))
			if diff := cmp.Diff(before, mac.state()); diff != "" {
				t.Errorf("not removed (-before +after):\n%s", diff)
			}
		})
	}
}

// What was done when the time was over is done.
func TestKeychainJustInTime(t *testing.T) {
	mac := playSecurity(t)
	k, cert := mac.keychain(place.User), storetest.Root(t, "tunneld local CA")
	mac.dialog = func() error { return errTooLate }
	if err := k.Add(t.Context(), cert); err != nil {
		t.Errorf("error %v; want none", err)
	}
	storetest.WantPresence(t, "added", k, cert, place.Present)
}

// The user gives up while the dialog is there.
func TestKeychainGivenUp(t *testing.T) {
	mac := playSecurity(t)
	k, cert := mac.keychain(place.User), storetest.Root(t, "tunneld local CA")
	before := mac.state()
	ctx, cancel := context.WithCancel(t.Context())
	mac.dialog = func() error {
		cancel()
		return ctx.Err()
	}
	if err := k.Add(ctx, cert); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v; want %v", err, context.Canceled)
	}
	if diff := cmp.Diff(before, mac.state()); diff != "" {
		t.Errorf("afterwards (-before +after):\n%s", diff)
	}
}

// A process that ends before any of its changes leaves what the next one finds.
func TestKeychainKilled(t *testing.T) {
	errKilled := errors.New("killed")
	use := func(mac *playedSecurity, n int, do func() error) (whole bool) {
		mac.before = func() {
			if n--; n < 0 {
				panic(errKilled)
			}
		}
		defer func() {
			mac.before = nil
			if r := recover(); r != nil && r != error(errKilled) {
				panic(r)
			}
		}()
		if err := do(); err != nil {
			t.Fatal(err)
		}
		return true
	}
	for n, done := 0, false; !done && !t.Failed(); n++ {
		mac := playSecurity(t)
		k, cert := mac.keychain(place.Machine), storetest.Root(t, "tunneld local CA")
		add := func() error { return k.Add(t.Context(), cert) }
		remove := func() error { return k.Remove(t.Context(), cert) }
		before := mac.state()
		done = use(mac, n, add)
		if p, err := k.Look(t.Context(), cert); !done && (n == 0) != (p == place.Absent) || err != nil {
			t.Errorf("ended at change %d, look says %d, error %v", n, p, err)
		}
		use(mac, 99, remove)
		if diff := cmp.Diff(before, mac.state()); diff != "" {
			t.Errorf("removed after an addition that ended at change %d (-before +after):\n%s", n, diff)
		}
		use(mac, n, add)
		use(mac, 99, add)
		storetest.WantPresence(t, "added again", k, cert, place.Present)
		done = use(mac, n, remove) && done
		use(mac, 99, remove)
		if diff := cmp.Diff(before, mac.state()); diff != "" {
			t.Errorf("removed after a removal that ended at change %d (-before +after):\n%s", n, diff)
		}
	}
}

// Trust settings that cannot be had are no reason to think that there are none.
func TestKeychainUnreadable(t *testing.T) {
	mac := playSecurity(t)
	k, cert := mac.keychain(place.User), storetest.Root(t, "tunneld local CA")
	delete(mac.settings, "system") // so nothing can be exported
	if p, err := k.Look(t.Context(), cert); err == nil {
		t.Errorf("no trust settings can be had, and look says %d", p)
	}
	if err := k.Remove(t.Context(), cert); err == nil {
		t.Error("no trust settings can be had, and it is removed")
	}
	mac.settings["system"] = map[string]string{}
	mac.hang = "trust-settings-export FILE"
	if p, err := k.Look(t.Context(), cert); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it takes for ever to have trust settings, and look says %d, error %v", p, err)
	}
	mac.hang = "find-certificate -a -p " + userLogin
	if p, err := k.Look(t.Context(), cert); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it takes for ever to have the certificates, and look says %d, error %v", p, err)
	}
	missing := k
	missing.programs.Find = func(string) (string, error) { return "", os.ErrNotExist }
	var blocked *place.BlockedError
	if err := missing.Ready(t.Context(), place.Add, cert); !errors.As(err, &blocked) {
		t.Errorf("without security, ready says %v", err)
	}
}

// What users do with Keychain Access is seen, and is in nobody's way.
func TestKeychainChangedByHand(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*playedSecurity, *x509.Certificate)
	}{
		{"deleted, but still trusted", func(p *playedSecurity, _ *x509.Certificate) { p.keychains[userLogin] = nil }},
		{"never trusted", func(p *playedSecurity, c *x509.Certificate) {
			p.settings["user"][appleHash(c.Raw)] = "<array><dict><key>kSecTrustSettingsResult</key><integer>3</integer></dict></array>"
		}},
		{"deleted with the keychain", func(p *playedSecurity, _ *x509.Certificate) { delete(p.keychains, userLogin) }},
		{"by the system's defaults", func(p *playedSecurity, c *x509.Certificate) { delete(p.settings["user"], appleHash(c.Raw)) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			mac := playSecurity(t)
			k, cert := mac.keychain(place.User), storetest.Root(t, "tunneld local CA")
			before := mac.state()
			if err := k.Add(t.Context(), cert); err != nil {
				t.Fatal(err)
			}
			test.change(mac, cert)
			storetest.WantPresence(t, "changed", k, cert, place.Partly)
			if blocked := k.Ready(t.Context(), place.Add, cert); k.exists(k.path) {
				if err := k.Add(t.Context(), cert); err != nil {
					t.Fatal(err)
				}
				storetest.WantPresence(t, "added again", k, cert, place.Present)
				test.change(mac, cert)
			} else if blocked == nil {
				t.Error("without the keychain, it is ready to be added to")
			}
			if err := k.Remove(t.Context(), cert); err != nil {
				t.Fatal(err)
			}
			storetest.WantPresence(t, "removed", k, cert, place.Absent)
			mac.keychains[userLogin] = nil
			if diff := cmp.Diff(before, mac.state()); diff != "" {
				t.Errorf("removed (-before +after):\n%s", diff)
			}
		})
	}
}

func TestFind(t *testing.T) {
	home := t.TempDir()
	if found := Find(place.User, home, program.Real()); found != nil {
		t.Errorf("%v in an empty home", found)
	}
	path := filepath.Join(home, loginKeychain)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	found := Find(place.User, home, program.Real())
	if found == nil {
		t.Fatal("no keychain; want the login one")
	}
	if p := found.Place(); p.Kind != place.Keychain || p.Path != path || p.Scope != place.User || p.Readers == "" {
		t.Errorf("place %+v", p)
	}
}

// What takes an add back leaves what somebody had put there.
func TestKeychainRestored(t *testing.T) {
	for _, tt := range []struct {
		name   string
		before func(*playedSecurity, *x509.Certificate)
	}{
		{"kept", func(p *playedSecurity, c *x509.Certificate) { p.keychains[userLogin] = [][]byte{c.Raw} }},
		{"trusted by the system's defaults", func(p *playedSecurity, c *x509.Certificate) {
			p.settings["user"] = map[string]string{appleHash(c.Raw): "<array/>"}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mac, cert := playSecurity(t), storetest.Root(t, "tunneld local CA")
			tt.before(mac, cert)
			k := mac.keychain(place.User)
			storetest.WantPresence(t, "before", k, cert, place.Partly)
			before := mac.state()
			restore, err := k.Before(t.Context(), cert)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second time there is nothing to take back
				if err := restore(t.Context()); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(before, mac.state()); diff != "" {
					t.Errorf("nothing added (-before +after):\n%s", diff)
				}
			}
			if tt.name == "kept" {
				if err := k.Add(t.Context(), cert); err != nil {
					t.Fatal(err)
				}
			} else {
				mac.keychains[userLogin] = [][]byte{cert.Raw}
			}
			if err := restore(t.Context()); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, mac.state()); diff != "" {
				t.Errorf("afterwards (-before +after):\n%s", diff)
			}
		})
	}
}
