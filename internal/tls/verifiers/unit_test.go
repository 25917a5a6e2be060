package verifiers

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestWeigh(t *testing.T) {
	for _, tt := range []struct {
		name     string
		seen     sight
		end      end
		want     Verdict
		evidence string
	}{
		{"a request", sight{shown: true, request: true}, end{}, Trusts, "its request came"},
		{"a request, and a failure", sight{shown: true, request: true}, end{status: 1, stderr: "x"}, Trusts, "its request came"},
		{"a request after an alert", sight{shown: true, request: true, refusal: "bad"}, end{}, Trusts, "its request came"},
		{"an alert", sight{shown: true, refusal: "tls: bad certificate"}, end{status: 1}, Refuses, "it ended the handshake: tls: bad certificate"},
		{"an alert, and words", sight{shown: true, refusal: "tls: bad certificate"}, end{status: 1, stderr: "\nI do not like it\n"}, Refuses, "I do not like it"},
		{"an alert, and then it stayed", sight{shown: true, refusal: "tls: bad certificate"}, end{status: -1, killed: true}, Refuses, "it ended the handshake: tls: bad certificate"},
		{"an end in the handshake", sight{shown: true}, end{status: 1, how: "exit status 1"}, Refuses, "it ended the handshake: exit status 1"},
		{"a crash in the handshake", sight{shown: true}, end{status: -1, how: "signal: aborted"}, Unknown, "it was shown the certificate and sent no request: signal: aborted"},
		{"a good end without a request", sight{shown: true}, end{how: "exit status 0"}, Unknown, "it was shown the certificate and sent no request: exit status 0"},
		{"slow in the handshake", sight{shown: true}, end{status: 1, killed: true}, Unknown, "it did not answer within 10s"},
		{"no connection", sight{}, end{status: 1, how: "exit status 1"}, Unknown, "it did not come as far as to be shown the certificate: exit status 1"},
		{"nobody there", sight{}, end{status: absentStatus}, Absent, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := client{limit: 10 * time.Second}
			if got := c.weigh(tt.seen, tt.end); got.verdict != tt.want || got.evidence != tt.evidence {
				t.Errorf("got %s (%s); want %s (%s)", got.verdict, got.evidence, tt.want, tt.evidence)
			}
		})
	}
}

func TestPick(t *testing.T) {
	for _, tt := range []struct {
		name, output, want string
		telling            []string
	}{
		{"the first line", "\n\nfirst\nsecond\n", "first", nil},
		{"what is telling", "depth=0\nverify error:num=20\n", "verify error:num=20", []string{"verify error"}},
		{"what is more telling", "x:FATAL: y\nnet_error -202\n", "net_error -202", []string{"net_error", ":FATAL:"}},
		{"without where it was logged", "a\n[1:2:3:ERROR:file.cc:9] net_error -202\n", "net_error -202", []string{"net_error"}},
		{"nothing telling", "first\n", "first", []string{"net_error"}},
		{"noise", "Picked up JAVA_TOOL_OPTIONS: -Dx\n*** You are running in headless mode.\nfirst\n", "first", nil},
		{"nothing", "", "", []string{"x"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := pick(tt.output, tt.telling); got != tt.want {
				t.Errorf("got %q; want %q", got, tt.want)
			}
		})
	}
}

func FuzzOneLine(f *testing.F) {
	f.Add("x\x1b[2J\r\ny")
	f.Add(strings.Repeat("\xff", 500))
	f.Fuzz(func(t *testing.T, s string) {
		got := oneLine(pick(s, []string{"] "}))
		if strings.ContainsAny(got, "\n\r\x1b\x00") || len([]rune(got)) > 203 {
			t.Errorf("%q", got)
		}
	})
}

// What is embedded is what the source says. Compilers of other versions may write
// other bytes.
func TestAskClass(t *testing.T) {
	need(t, "javac")
	version, err := exec.Command("javac", "-version").CombinedOutput()
	if err != nil || !strings.Contains(string(version), "javac 17.") {
		t.Skipf("it was compiled by version 17, and this is %s", bytes.TrimSpace(version))
	}
	dir := t.TempDir()
	run(t, "javac", "--release", "8", "-Xlint:-options", "-d", dir, "java/Ask.java")
	compiled, err := os.ReadFile(filepath.Join(dir, "Ask.class"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(compiled, askClass) {
		t.Error("java/Ask.class is not what java/Ask.java compiles to: javac --release 8 java/Ask.java")
	}
}

func TestDefaultProfile(t *testing.T) {
	for _, tt := range []struct {
		name, profiles, installs string
		dirs                     []string
		last                     map[string]string // LastPlatformDir of a profile
		want                     string
	}{
		{"no file", "", "", nil, nil, ""},
		{"one profile", "[Profile0]\nName=a\nIsRelative=1\nPath=a\n", "", []string{"a"}, nil, "a"},
		{"one that is gone", "[Profile0]\nName=a\nIsRelative=1\nPath=a\n", "", nil, nil, ""},
		{"the installation's, not the old default", profilesINI, "", []string{"abc.default-esr", "xyz.default"}, nil, "abc.default-esr"},
		{"the old default, if that is gone", profilesINI, "", []string{"xyz.default"}, nil, "xyz.default"},
		{"installs.ini", "[Profile0]\nPath=a\n[Profile1]\nPath=b\nDefault=1\n", "[ABCDEF]\nDefault=a\nLocked=1\n", []string{"a", "b"}, nil, "a"},
		{"two installations", "[Profile0]\nPath=a\n[Profile1]\nPath=b\n[InstallX]\nDefault=a\n[InstallY]\nDefault=b\n", "",
			[]string{"a", "b"}, map[string]string{"a": "/opt/firefox", "b": "/usr/lib/here"}, "b"},
		{"Windows' line ends and a mark", "\ufeff; comment\r\n[Profile0]\r\nPath = Profiles/a\r\nIsRelative=1\r\n", "", []string{"Profiles/a"}, nil, "Profiles/a"},
		{"the file is a general one", "[General]\nStartWithLastProfile=1\nVersion=2\n", "", nil, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			write(t, filepath.Join(root, "profiles.ini"), tt.profiles)
			write(t, filepath.Join(root, "installs.ini"), tt.installs)
			for _, dir := range tt.dirs {
				write(t, filepath.Join(root, dir, "compatibility.ini"), "[Compatibility]\nLastPlatformDir="+tt.last[dir]+"\n")
			}
			want := ""
			if tt.want != "" {
				want = filepath.Join(root, filepath.FromSlash(tt.want))
			}
			if got := defaultProfile(root, "/usr/lib/here/firefox"); got != want {
				t.Errorf("got %q; want %q", got, want)
			}
		})
	}
}

func TestFirefoxRoots(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere there is one")
	}
	home := isolated(t)
	old, now := filepath.Join(home, ".mozilla", "firefox"), filepath.Join(home, ".config", "mozilla", "firefox")
	started := func() bool { return firefox("", "", firefoxRoots()...).note == "" }
	if started() {
		t.Error("no directory, and a profile")
	}
	write(t, filepath.Join(now, "profiles.ini"), "[Profile0]\nPath=a\n")
	write(t, filepath.Join(now, "a", "prefs.js"), "")
	if !started() {
		t.Error("the new directory's profile was not found")
	}
	if err := os.MkdirAll(old, 0o700); err != nil {
		t.Fatal(err)
	}
	if started() {
		t.Error("the new directory's profile was found, though the old one is used")
	}
	write(t, filepath.Join(old, "profiles.ini"), "[Profile0]\nPath=b\n")
	write(t, filepath.Join(old, "b", "prefs.js"), "")
	if !started() {
		t.Error("the old directory's profile was not found")
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o700); err != nil {
		t.Fatal(err)
	}
}

func FuzzINI(f *testing.F) {
	f.Add(profilesINI)
	f.Add("[\n]\n[]\n=\n[a]\n=b\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range parseINI(text) {
			if s.keys == nil || strings.ContainsAny(s.name, "\n") {
				t.Errorf("%q", s.name)
			}
		}
	})
}

func TestCopyProfile(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "profile")
	for _, name := range []string{"cert9.db", "key4.db", "logins.json", "places.sqlite", "pkcs11.txt", "cert9.db-journal"} {
		write(t, filepath.Join(from, name), name)
	}
	write(t, filepath.Join(from, "prefs.js"), "// a comment\nuser_pref(\"security.enterprise_roots.enabled\", true);\nuser_pref(\"network.proxy.type\", 1);\n")
	write(t, filepath.Join(from, "user.js"), "user_pref(\"security.enterprise_roots.enabled\", false);")
	if err := copyProfile(from, to); err != nil {
		t.Fatal(err)
	}
	files := tree(t, to)
	if got := files["user.js"]; !strings.HasPrefix(got, "----------user_pref(\"security.enterprise_roots.enabled\", true);\nuser_pref(\"security.enterprise_roots.enabled\", false);\n"+ownPrefs[:20]) || strings.Contains(got, "proxy.type\", 1") {
		t.Errorf("preferences: %s", got)
	}
	delete(files, "user.js")
	for _, name := range []string{"cert9.db", "pkcs11.txt", "cert9.db-journal"} {
		if !strings.HasSuffix(files[name], name) {
			t.Errorf("%s is missing", name)
		}
		delete(files, name)
	}
	if len(files) > 0 {
		t.Errorf("copied, too: %v", files)
	}
}

func TestSnapOf(t *testing.T) {
	wrapper := filepath.Join(t.TempDir(), "chromium-browser")
	write(t, wrapper, "#!/bin/sh\n\nexec /snap/bin/chromium \"$@\"\n")
	plain := filepath.Join(t.TempDir(), "firefox")
	write(t, plain, "#!/bin/sh\nexec /usr/lib/firefox/firefox \"$@\"\n")
	binary := filepath.Join(t.TempDir(), "binary")
	write(t, binary, "\x7fELF /snap/bin/firefox")
	for program, want := range map[string]string{
		"/snap/bin/firefox": "firefox",
		wrapper:             "chromium",
		plain:               "",
		binary:              "",
		"/does/not/exist":   "",
	} {
		if got := snapOf(program); got != want {
			t.Errorf("%s: got %q; want %q", program, got, want)
		}
	}
}

func TestFixes(t *testing.T) {
	isolated(t)
	if got, want := nodeFix("v20.20.2\n"), byEnv; got != want {
		t.Errorf("Node 20: got %q; want %q", got, want)
	}
	for _, version := range []string{"v22.19.0\n", "v24.6.0\n", "v26.0.1\n"} {
		if got := nodeFix(version); !strings.Contains(got, "NODE_USE_SYSTEM_CA=1") {
			t.Errorf("%s: got %q", version, got)
		}
	}
	for _, version := range []string{"v22.18.0\n", "v23.9.0\n", "v24.5.0\n", "", "x"} {
		if got := nodeFix(version); got != byEnv {
			t.Errorf("%s: got %q", version, got)
		}
	}
	home := t.TempDir()
	write(t, filepath.Join(home, "lib", "security", "cacerts"), "")
	if got := javaFix(home + "\n"); got != forUser {
		t.Errorf("a Java of the user's: got %q", got)
	}
	if got := javaFix(""); got != byEnvJava {
		t.Errorf("a Java that does not say where it is: got %q", got)
	}
	t.Setenv("SSL_CERT_FILE", filepath.Join(home, "roots.pem"))
	if got := systemFix("SSL_CERT_FILE")(""); got != byEnv {
		t.Errorf("with SSL_CERT_FILE: got %q", got)
	}
	t.Setenv("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
	if got := systemFix("SSL_CERT_FILE")(""); got == byEnv {
		t.Errorf("with the system's SSL_CERT_FILE: got %q", got)
	}
}
