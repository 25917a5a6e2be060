// Package localapi is the control API: JSON over HTTP over a unix socket that
// only its owner may use. It has the server's half, which the daemon fills
// with functions, and the client's half, which tunnelctl uses.
//
// Nothing here listens on TCP, and a request that a web page could have caused
// (one with an Origin, a Referer, or a Host of its own) is refused.
package localapi
