package utils // want `imports: a package called utils`
