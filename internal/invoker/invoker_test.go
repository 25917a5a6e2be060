package invoker

import (
	"os"
	"strings"
	"testing"
)

func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root runs on behalf of others")
	}
	for _, name := range sudoVariables {
		t.Setenv(name, "")
	}
}

func TestFind(t *testing.T) {
	asRoot(t)
	t.Setenv("HOME", "/somewhere")
	tests := []struct {
		name, variable, value string
		want                  string // UID, name, home and whether it is sudo; else the error
	}{
		{name: "nobody else", want: "0 root /somewhere false"},
		{name: "root by sudo", variable: "SUDO_UID", value: "0", want: "0 root /somewhere false"},
		{name: "sudo", variable: "SUDO_UID", value: "65534", want: "65534 nobody /nonexistent true"},
		{name: "pkexec", variable: "PKEXEC_UID", value: "65534", want: "65534 nobody /nonexistent true"},
		{name: "no number", variable: "SUDO_UID", value: "dev", want: `find the user behind $SUDO_UID: "dev" is no user id`},
		{name: "negative", variable: "SUDO_UID", value: "-1", want: `find the user behind $SUDO_UID: "-1" is no user id`},
		{name: "nobody has it", variable: "SUDO_UID", value: "3999999999", want: "find the user behind $SUDO_UID: the system knows no user 3999999999"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.variable != "" {
				t.Setenv(tt.variable, tt.value)
			}
			u, err := Find(t.Context())
			got := ""
			if err != nil {
				got = err.Error()
			} else {
				got = strings.Join([]string{u.UID, u.Name, u.Home, map[bool]string{true: "true", false: "false"}[u.Sudo]}, " ")
			}
			if got != tt.want {
				t.Errorf("got %s; want %s", got, tt.want)
			}
		})
	}
}

func TestCommand(t *testing.T) {
	asRoot(t)
	t.Setenv("SUDO_UID", "65534")
	t.Setenv("SSH_AUTH_SOCK", "/run/agent")
	u, err := Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out, err := u.Command(t.Context(), "sh", "-c", `echo "$(id -u) $(id -g) $(id -G) $HOME $USER [$SSH_AUTH_SOCK]"; cut -d' ' -f7 /proc/self/stat; grep CapEff /proc/self/status`).Output()
	if err != nil {
		t.Fatal(err)
	}
	want := "65534 65534 65534 /nonexistent nobody []\n0\nCapEff:\t0000000000000000\n"
	if string(out) != want {
		t.Errorf("it ran as\n%s; want\n%s", out, want)
	}
}

func TestParsePasswd(t *testing.T) {
	tests := []struct{ name, line, home string }{
		{"whole", "ada:x:1000:1000:Ada,,,:/home/ada:/bin/sh\n", "/home/ada"},
		{"another user", "bob:x:1001:1001::/home/bob:/bin/sh\n", ""},
		{"no name", ":x:1000:1000::/home/ada:/bin/sh\n", ""},
		{"cut off", "ada:x:1000:1000:Ada", ""},
		{"nothing", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u, err := parsePasswd([]byte(tt.line), "1000")
			if (err == nil) != (tt.home != "") || err == nil && u.HomeDir != tt.home {
				t.Errorf("%+v, %v; want home %q", u, err, tt.home)
			}
		})
	}
}

func FuzzParsePasswd(f *testing.F) {
	f.Add([]byte("ada:x:1000:1000:Ada,,,:/home/ada:/bin/sh\n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		if u, err := parsePasswd(line, "1000"); err == nil && (u.Uid != "1000" || u.Username == "") {
			t.Errorf("%q is %+v", line, u)
		}
	})
}

func TestCheckHome(t *testing.T) {
	asRoot(t)
	dir := t.TempDir()
	if err := (User{Home: dir}).CheckHome(); err != nil {
		t.Error(err)
	}
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if err := (User{Home: dir}).CheckHome(); err == nil {
		t.Error("another user's home is taken for one's own")
	}
}
