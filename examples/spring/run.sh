#!/bin/sh
# run.sh CLASSES CLASS...   compiles application and tests into the folder CLASSES, and runs a class of them.
set -eu
: "${JDBC_URL:?names the database}"
cd "$(dirname "$0")"
classpath=$1
for jar in spring3-aop spring3-beans spring3-context spring3-core spring3-expression spring3-jdbc spring3-orm spring3-test \
    spring3-transaction hibernate-core hibernate-entitymanager hibernate-commons-annotations geronimo-jpa_2.0_spec \
    geronimo-jta-1.2-spec antlr commons-collections3 commons-logging dom4j javassist slf4j-api slf4j-nop HikariCP postgresql \
    junit4 hamcrest; do
    classpath=$classpath:/usr/share/java/$jar.jar
done
# The newest that this Spring reads.
javac --release 11 -Xlint:-options -cp "$classpath" -d "$1" src/main/java/signup/*.java src/test/java/signup/*.java
shift
# This Spring and this Hibernate define classes of their own.
exec java --add-opens java.base/java.lang=ALL-UNNAMED -cp "$classpath" "$@"
