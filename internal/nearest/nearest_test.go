package nearest_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tunneld/tunneld/internal/nearest"
)

func TestTo(t *testing.T) {
	services := []string{"task-api", "task-db", "task-tcp", "billing", "api", "kubernetes"}
	tests := []struct {
		name, word string
		want       []string
	}{
		{"a letter missing", "task-ap", []string{"task-api", "task-db", "task-tcp"}},
		{"two letters swapped", "tsak-api", []string{"task-api", "api"}},
		{"two letters of a short name swapped", "pai", []string{"api"}},
		{"a part of the name", "bill", []string{"billing"}},
		{"case", "Billing", []string{"billing"}},
		{"nothing like it", "grafana", []string{}},
		{"nothing at all", "", []string{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, nearest.To(tt.word, services, 3)); diff != "" {
				t.Errorf("To(%q) (-want +got):\n%s", tt.word, diff)
			}
		})
	}
}
