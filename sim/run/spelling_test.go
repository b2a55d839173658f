package run_test

import "encoding/base64"

// spellings are the forms in which a password could show up: as it is, and in base64 at each of the three offsets that it
// may have in a longer text. The ends of a base64 form depend on what surrounds it and are cut off.
func spellings(password string) []string {
	forms := []string{password}
	for offset := range 3 {
		text := base64.StdEncoding.EncodeToString(append(make([]byte, offset), password...))
		forms = append(forms, text[4:len(text)-4])
	}
	return forms
}
