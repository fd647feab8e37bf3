package strictyaml

import "reflect"

// Redacted returns config, a struct, with another text in place of each secret.
func Redacted[T any](config T) T {
	v := reflect.ValueOf(&config).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); v.Type().Field(i).Tag.Get("secret") != "" && f.String() != "" {
			f.SetString("REDACTED")
		}
	}
	return config
}
