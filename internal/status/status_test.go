package status_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/status"
)

var update = flag.Bool("update", false, "write the golden files")

// The wire format: other programs read it, so a change here is one for them.
func TestWireFormat(t *testing.T) {
	since := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	s := status.Status{
		Version: "v0.1.0",
		Config:  status.Config{Path: "/home/u/.config/tunneld/config.yaml", Error: "config.yaml:3:5: unknown key"},
		Clusters: []status.Cluster{{
			Kubeconfig: "", Context: "lab",
			Condition: status.Condition{State: status.Offline, Cause: "connection refused", Hint: "check the VPN"},
		}},
		Forwards: []status.Forward{{
			Name: "task-api", Hostnames: []string{"task-api.local"}, Address: "127.77.31.4",
			URL: "https://task-api.local", URLs: []string{"https://task-api.local", "http://task-api.local"},
			Target:    "service/task-api in namespace task-api of context lab",
			Condition: status.Condition{State: status.Ready}, Since: since,
			Endpoints: status.Endpoints{Ready: 2, Total: 3},
			Ports:     []status.Port{{Name: "http", Listen: "127.77.31.4:8000", Port: 8000, ServedBy: "forward"}},
			Pods: []status.Pod{{
				Name: "task-api-0", Hostnames: []string{"task-api-0.task-api.local"}, Address: "127.77.31.5", URL: "https://task-api-0.task-api.local",
				Ports: []status.Port{{Name: "http", Listen: "127.77.31.5:8000", Port: 8000, ServedBy: "forward"}}, Ready: true,
			}},
			Connections: status.Connections{Active: 1, Total: 5, Failed: 2},
			Bytes:       status.Bytes{In: 100, Out: 10},
			LastError:   "2026-11-22 09:59:00 no pod is ready",
			Notes:       []string{"port 9003 is UDP"},
		}},
		DNS: status.DNS{Listen: "127.0.0.1:15354", Wanted: "127.0.0.1:15353", Names: 3, Rung: "hosts", Why: "mDNS comes first", Passed: []status.Passed{{Rung: "resolved-link", Why: "mDNS comes first"}}},
		TLS: status.TLS{
			Fingerprint: "ab12", NotAfter: since, Permitted: []string{"local"}, Renewed: "it expired on 2026-11-21",
			Expiring: "the local CA expires on 2026-11-22", Trusted: true, Hint: "tunnelctl trust", Dir: "/home/u/.local/state/tunneld", Error: "disk full",
		},
	}
	got, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "status.json")
	if *update {
		if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(bytes.TrimSpace(want)), string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var back status.Status
	if err := json.Unmarshal(got, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, back); diff != "" {
		t.Errorf("read again (-want +got):\n%s", diff)
	}
}

func TestUsable(t *testing.T) {
	want := map[status.State]bool{status.Degraded: true, status.Ready: true, status.Idle: true}
	for _, s := range status.States() {
		if s.Usable() != want[s] {
			t.Errorf("%s is usable: %v", s, s.Usable())
		}
	}
}
