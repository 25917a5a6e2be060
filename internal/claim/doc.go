// Package claim keeps the operating system asking us for our names. It has them
// claimed by the privileged helper, looks whether they resolve as the programs of
// this system see it, has the next way tried where they do not, and mends what
// somebody else has broken.
//
// It knows neither what the ways are (osdns does) nor how names are answered
// (dns does).
package claim
