package survey

import (
	"strings"

	"github.com/tunneld/tunneld/internal/osdns/machine"
)

// ResolvConf is the file that names the servers which programs ask.
const ResolvConf = "/etc/resolv.conf"

// IsResolvedStub reports whether an address is one where systemd's resolver listens.
func IsResolvedStub(server string) bool { return server == "127.0.0.53" || server == "127.0.0.54" }

// NameServers are those of resolv.conf.
func NameServers(s machine.System) ([]string, error) {
	file, err := s.ReadFile(ResolvConf)
	if err != nil {
		return nil, err
	}
	var servers []string
	for line := range strings.Lines(string(file)) {
		if fields := strings.Fields(line); len(fields) >= 2 && fields[0] == "nameserver" {
			servers = append(servers, fields[1])
		}
	}
	return servers, nil
}
