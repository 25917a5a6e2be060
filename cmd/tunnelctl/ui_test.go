package main

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/status"
)

func TestStatusText(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("USERPROFILE", home) // Windows' HOME
	offline := status.Condition{State: status.Offline, Cause: "no answer"}
	const head = "tunneld v1, configuration /c.yaml\n"
	type test struct {
		name   string
		report status.Status
		named  bool
		want   string
	}
	tests := []test{
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
			want: "TLS: the local CA is a new one, so clients have to trust it anew (the old one: it expired)\n" +
				"  hint: tunnelctl trust\n",
		},
		{
			name:   "a CA that has been trusted anew",
			report: status.Status{TLS: status.TLS{Renewed: "it expired", Trusted: true}},
			want:   head,
		},
		{
			name:   "a CA that is not trusted, once for all forwards",
			report: status.Status{TLS: status.TLS{Hint: "not yet"}, Forwards: []status.Forward{{Name: "a"}, {Name: "b"}}},
			want:   head + "https: not yet\n\na    \n\nb    \n",
		},
		{
			name:   "a CA that is not trusted, and nothing that it would be for",
			report: status.Status{TLS: status.TLS{Hint: "not yet"}},
			want:   head,
		},
		{
			name:   "a CA that expires soon, and is not trusted",
			report: status.Status{TLS: status.TLS{Hint: "not yet", Expiring: "soon"}, Forwards: []status.Forward{{Name: "a"}}},
			want:   head + "TLS: soon\nhttps: not yet\n\na    \n",
		},
		{
			name:   "no CA",
			report: status.Status{TLS: status.TLS{Error: "damaged", Hint: "mend it"}},
			named:  true,
			want:   "TLS error: damaged\n  hint: mend it\n",
		},
	}
	pod := func(i int) status.Pod {
		name := fmt.Sprint("db-", i)
		return status.Pod{Name: name, Hostnames: []string{name + ".db.local", name + ".db.localhost"}, Address: fmt.Sprint("127.0.0.1", i), Ready: i != 1}
	}
	forward := status.Forward{Name: "db", Condition: status.Condition{State: status.Idle}, Target: "service/db", Hostnames: []string{"db.local"}}
	for i := range 2 {
		forward.Pods = append(forward.Pods, pod(i))
		forward.Hostnames = append(forward.Hostnames, pod(i).Hostnames...)
	}
	many := forward
	many.Pods = append(slices.Clone(forward.Pods), pod(2), pod(3), pod(4))
	tests = append(tests, []test{
		{
			name: "a forward whose pods have names", report: status.Status{Forwards: []status.Forward{forward}}, named: true,
			want: "\ndb  idle  service/db\n  each pod: db-0.db.local db-1.db.local\n" +
				"  idle since " + time.Time{}.Local().Format(time.DateTime) + "\n  names: db.local\n" +
				"  PORT  NAME  LISTENS ON  SERVED BY\n" +
				"  POD   READY  ADDRESS     NAMES\n" +
				"  db-0  yes    127.0.0.10  db-0.db.local db-0.db.localhost\n" +
				"  db-1  no     127.0.0.11  db-1.db.local db-1.db.localhost\n" +
				"  connections: 0 active, 0 in all, 0 failed; 0 B in, 0 B out\n",
		},
		{
			name: "many pods", report: status.Status{Forwards: []status.Forward{many}},
			want: head + "\ndb  idle  service/db\n  each pod: db-0.db.local db-1.db.local db-2.db.local and 2 more\n",
		},
	}...)
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

func TestTrustHint(t *testing.T) {
	secure, raw := status.Forward{URL: "https://a.local"}, status.Forward{}
	tests := []struct {
		name    string
		tls     status.TLS
		forward status.Forward
		want    string
	}{
		{"not trusted", status.TLS{Hint: "not yet"}, secure, "https: not yet"},
		{"not trusted, without HTTPS", status.TLS{Hint: "not yet"}, raw, ""},
		{"plain HTTP only", status.TLS{Hint: "not yet"}, status.Forward{URL: "http://a.local"}, ""},
		{"trusted, or not known", status.TLS{}, secure, ""},
		{"of no use", status.TLS{Error: "too early", Hint: "set the clock"}, secure, "https: too early"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := trustHint(tt.tls, tt.forward); got != tt.want {
				t.Errorf("%q; want %q", got, tt.want)
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
