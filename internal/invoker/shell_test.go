package invoker

import (
	"runtime"
	"strings"
	"testing"
)

func TestPasswdShell(t *testing.T) {
	list := strings.Join([]string{
		"root:x:0:0:root:/root:/bin/bash",
		"#ada:x:1000:1000::/home/ada:/bin/comment",
		"bob:x:1000:1000::/home/bob",
		":x:1000:1000::/home/ada:/bin/nameless",
		"ada:x:1000:1000:Ada,,,:/home/ada:/bin/zsh",
		"later:x:1000:1000::/home/later:/bin/later",
		"empty:x:1001:1001::/home/empty:",
		"",
	}, "\n")
	tests := []struct {
		name, uid, want string
		ok              bool
	}{
		{"the first that is whole", "1000", "/bin/zsh", true},
		{"empty", "1001", "", true},
		{"root", "0", "/bin/bash", true},
		{"nobody", "1002", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, ok := passwdShell([]byte(list), tt.uid); got != tt.want || ok != tt.ok {
				t.Errorf("%q, %v; want %q, %v", got, ok, tt.want, tt.ok)
			}
		})
	}
}

func FuzzPasswdShell(f *testing.F) {
	f.Add([]byte("ada:x:1000:1000:Ada,,,:/home/ada:/bin/zsh\n"))
	f.Fuzz(func(t *testing.T, list []byte) {
		if shell, ok := passwdShell(list, "1000"); !ok && shell != "" || strings.ContainsAny(shell, ":\n") {
			t.Errorf("%q has the shell %q", list, shell)
		}
	})
}

func TestShell(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("which users there are is known on Linux")
	}
	if shell, err := (User{UID: "0"}).Shell(t.Context()); err != nil || !strings.HasPrefix(shell, "/") {
		t.Errorf("root's is %q, %v", shell, err)
	}
	if _, err := (User{UID: "3999999999"}).Shell(t.Context()); err == nil {
		t.Error("somebody has an id that nobody has")
	}
}
