package main

import (
	"bytes"
	"io"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/status"
)

func TestStatusText(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("USERPROFILE", home) // Windows' HOME
	offline := status.Condition{State: status.Offline, Cause: "no answer"}
	const head = "tunneld v1, configuration /c.yaml\n"
	tests := []struct {
		name   string
		report status.Status
		named  bool
		want   string
	}{
		{
			name: "clusters that work are not told",
			report: status.Status{Clusters: []status.Cluster{
				{Kubeconfig: "/lab", Context: "dev", Condition: status.Condition{State: status.Ready}},
			}},
			want: head,
		},
		{
			name: "of clusters the file, if it is not the default one",
			report: status.Status{Clusters: []status.Cluster{
				{Kubeconfig: filepath.Join(home, ".kube", "config"), Context: "dev", Condition: offline},
				{Kubeconfig: "/lab", Context: "dev", Condition: offline},
			}},
			want: head + "context dev  offline  no answer\ncontext dev of /lab  offline  no answer\n",
		},
		{
			name:   "a CA that has to be trusted anew",
			report: status.Status{TLS: status.TLS{Renewed: "it expired"}},
			named:  true,
			want: "TLS: the local CA is a new one, so clients have to trust it anew (the old one could not be used: it expired)\n" +
				"  hint: tunnelctl trust --pem\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.report.Version, tt.report.Config.Path = "v1", "/c.yaml"
			var out bytes.Buffer
			(&ui{out: &out, err: io.Discard}).status(tt.report, tt.named)
			if diff := cmp.Diff(tt.want, out.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhere(t *testing.T) {
	tests := []struct {
		name    string
		forward status.Forward
		want    string
	}{
		{"HTTP", status.Forward{URL: "https://a.local", Address: "127.0.0.2", Ports: []status.Port{{Listen: "127.0.0.2:443"}}}, "https://a.local"},
		{"a raw port", status.Forward{Address: "127.0.0.2", Ports: []status.Port{{Listen: "127.0.0.2:5432"}}}, "127.0.0.2:5432"},
		{"several", status.Forward{Address: "127.0.0.2", Ports: []status.Port{{Listen: "127.0.0.2:1"}, {Error: "taken"}, {Listen: "127.0.0.2:3"}}}, "127.0.0.2:1,127.0.0.2:3"},
		{"none that listens", status.Forward{Address: "127.0.0.2", Ports: []status.Port{{Error: "taken"}}}, "127.0.0.2"},
		{"nothing is known yet", status.Forward{}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := where(tt.forward); got != tt.want {
				t.Errorf("%q; want %q", got, tt.want)
			}
		})
	}
}
