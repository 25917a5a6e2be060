package loginshell

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestInvocations(t *testing.T) {
	tests := []struct {
		shell string
		want  []invocation
	}{
		{"/bin/bash", []invocation{{"bash", "-i", "-l", "-c", "exec x"}, {"bash", "-l", "-c", "exec x"}}},
		{"/usr/bin/fish", []invocation{{"fish", "-i", "-l", "-c", "exec x"}, {"fish", "-l", "-c", "exec x"}}},
		{"/bin/tcsh", []invocation{{"-tcsh", "-c", "exec x"}, {"tcsh", "-c", "exec x"}}},
	}
	for _, tt := range tests {
		if d := cmp.Diff(tt.want, invocations(tt.shell, "exec x")); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.shell, d)
		}
	}
}

func TestCommand(t *testing.T) {
	got := command("/usr/libexec/tunneld", []string{"capture-environment", "", "it's $x; y"})
	if want := `exec /usr/libexec/tunneld capture-environment '' 'it'\''s $x; y'`; got != want {
		t.Errorf("%s; want %s", got, want)
	}
}
