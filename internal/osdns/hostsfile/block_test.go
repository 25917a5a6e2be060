package hostsfile

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBlock(t *testing.T) {
	one := []string{"127.77.31.4 a.local"}
	for _, test := range []struct {
		name  string
		file  []byte
		lines []string
		eol   string
		want  string
	}{
		{"no file", nil, one, "\n", "# BEGIN tunneld 7 (file added)\n127.77.31.4 a.local # tunneld 7\n# END tunneld 7\n"},
		{"empty", []byte{}, one, "\n", "# BEGIN tunneld 7\n127.77.31.4 a.local # tunneld 7\n# END tunneld 7\n"},
		{"at the end", []byte("x\n"), one, "\n", "x\n# BEGIN tunneld 7\n127.77.31.4 a.local # tunneld 7\n# END tunneld 7\n"},
		{"no final newline", []byte("x"), one, "\n", "x\n# BEGIN tunneld 7 (newline added after byte 1)\n127.77.31.4 a.local # tunneld 7\n# END tunneld 7\n"},
		{"CRLF, no final newline", []byte("w\r\nx"), one, "\r\n", "w\r\nx\r\n# BEGIN tunneld 7 (newline added after byte 4)\r\n127.77.31.4 a.local # tunneld 7\r\n# END tunneld 7\r\n"},
		{"in place", []byte("x\n# BEGIN tunneld 7\nold # tunneld 7\n# END tunneld 7\ny\n"), one, "\n", "x\n# BEGIN tunneld 7\n127.77.31.4 a.local # tunneld 7\n# END tunneld 7\ny\n"},
		{"none", []byte("x\n# BEGIN tunneld 7\nold # tunneld 7\n# END tunneld 7\ny\n"), nil, "\n", "x\ny\n"},
		{"another owner's stays", []byte("# BEGIN tunneld 70\nold # tunneld 70\n# END tunneld 70\n"), one, "\n", "# BEGIN tunneld 70\nold # tunneld 70\n# END tunneld 70\n# BEGIN tunneld 7\n127.77.31.4 a.local # tunneld 7\n# END tunneld 7\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := bytes.Clone(test.file)
			got := Put(test.file, "7", test.lines, test.eol)
			if diff := cmp.Diff(test.want, string(got)); diff != "" {
				t.Errorf("Put (-want +got):\n%s", diff)
			}
			if !bytes.Equal(before, test.file) {
				t.Error("the argument was changed")
			}
			if again := Put(got, "7", test.lines, test.eol); !bytes.Equal(again, got) {
				t.Errorf("a second time: %q; want %q", again, got)
			}
		})
	}
}

// Whatever became of a block, the lines of others stay.
func TestRemoveBlock(t *testing.T) {
	for _, test := range []struct{ name, file, want string }{
		{"no end", "x\n# BEGIN tunneld 7\na # tunneld 7\ny\n", "x\ny\n"},
		{"no beginning", "x\na # tunneld 7\n# END tunneld 7\ny\n", "x\ny\n"},
		{"only a line", "x\na # tunneld 7\ny\n", "x\ny\n"},
		{"twice", "# BEGIN tunneld 7\na # tunneld 7\n# END tunneld 7\nx\n# BEGIN tunneld 7\nb # tunneld 7\n# END tunneld 7\n", "x\n"},
		{"a line inside", "# BEGIN tunneld 7\n10.0.0.1 mine\na # tunneld 7\n# END tunneld 7\n", "10.0.0.1 mine\n"},
		{"line endings changed", "x\r\n# BEGIN tunneld 7\r\na # tunneld 7\r\n# END tunneld 7\r\n", "x\r\n"},
		{"no newline at its end", "x\n# BEGIN tunneld 7\na # tunneld 7\n# END tunneld 7", "x\n"},
		{"the newline is taken back", "x\n# BEGIN tunneld 7 (newline added after byte 1)\na # tunneld 7\n# END tunneld 7\n", "x"},
		{"but not if something follows", "x\n# BEGIN tunneld 7 (newline added after byte 1)\na # tunneld 7\n# END tunneld 7\ny\n", "x\ny\n"},
		{"nor if something came before", "x\ny\n# BEGIN tunneld 7 (newline added after byte 1)\na # tunneld 7\n# END tunneld 7\n", "x\ny\n"},
		{"a file of ours that others use", "# BEGIN tunneld 7 (file added)\na # tunneld 7\n# END tunneld 7\nx\n", "x\n"},
		{"what only looks like ours", "# BEGIN tunneld 7 things\n# tunneld 7\n# END tunneld 77\nx # tunneld 17\n", "# BEGIN tunneld 7 things\n# tunneld 7\n# END tunneld 77\nx # tunneld 17\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, string(Remove([]byte(test.file), "7"))); diff != "" {
				t.Errorf("Remove (-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzBlock: what two owners put into a file and take out in any order leaves it as
// it was, and lines that others add in the meantime stay.
func FuzzBlock(f *testing.F) {
	f.Add("127.0.0.1 localhost\n", "", false)
	f.Add("no newline", "10.0.0.1 mine\n", true)
	f.Add("w\r\nx\r", "", true)
	f.Add("# BEGIN tunneld 7 (file added)\na # tunneld 7", "y", false)
	f.Add("x\n# BEGIN tunneld 7 (newline added after byte 1)\n# END tunneld 8\n", "", false)
	f.Fuzz(func(t *testing.T, before, added string, crlf bool) {
		eol := "\n"
		if crlf {
			eol = "\r\n"
		}
		clean := Remove(Remove([]byte(before), "7"), "8")
		for _, file := range [][]byte{clean, nil} {
			a := []string{"127.77.0.1 a.local"}
			b := []string{"127.77.0.2 b.local", "::1 b.local"}
			both := Put(Put(file, "7", a, eol), "8", b, eol)
			both = Put(both, "7", b, eol)
			for _, order := range [][2]string{{"7", "8"}, {"8", "7"}} {
				got := Remove(Remove(both, order[0]), order[1])
				if !bytes.Equal(got, file) || (got == nil) != (file == nil) {
					t.Fatalf("%q became %q, by %q", file, got, both)
				}
			}
			if strings.Contains(added, "tunneld") {
				continue
			}
			for _, with := range [][]byte{append(bytes.Clone(both), added...), append([]byte(added+"\n"), both...)} {
				got := Remove(Remove(with, "7"), "8")
				if !bytes.Contains(got, []byte(added)) || !bytes.Contains(got, file) {
					t.Fatalf("%q and %q became %q", file, added, got)
				}
			}
		}
	})
}
