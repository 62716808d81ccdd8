package signup;

import com.zaxxer.hikari.HikariDataSource;
import java.util.Scanner;
import javax.sql.DataSource;
import org.springframework.context.annotation.AnnotationConfigApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.ComponentScan;
import org.springframework.jdbc.core.JdbcTemplate;
import org.springframework.orm.jpa.JpaTransactionManager;
import org.springframework.orm.jpa.LocalContainerEntityManagerFactoryBean;
import org.springframework.orm.jpa.vendor.HibernateJpaVendorAdapter;
import org.springframework.transaction.PlatformTransactionManager;
import org.springframework.transaction.support.TransactionTemplate;

// Debian's Spring has no working CGLIB: elsewhere this is a @Configuration, and its services are
// @Transactional.
@ComponentScan
public class Application {
  @Bean
  DataSource dataSource() {
    HikariDataSource pool = new HikariDataSource();
    pool.setJdbcUrl(System.getenv("JDBC_URL"));
    // A connection is held until the vendor has answered: calls a second times its seconds.
    pool.setMaximumPoolSize(12);
    return pool;
  }

  @Bean
  JdbcTemplate jdbcTemplate(DataSource dataSource) {
    JdbcTemplate jdbc = new JdbcTemplate(dataSource);
    // Above the provider's timeout.
    jdbc.setQueryTimeout(12);
    return jdbc;
  }

  @Bean
  LocalContainerEntityManagerFactoryBean entityManagerFactory(DataSource dataSource) {
    LocalContainerEntityManagerFactoryBean factory = new LocalContainerEntityManagerFactoryBean();
    factory.setDataSource(dataSource);
    factory.setPackagesToScan("signup");
    factory.setJpaVendorAdapter(new HibernateJpaVendorAdapter());
    return factory;
  }

  @Bean
  JpaTransactionManager transactionManager(LocalContainerEntityManagerFactoryBean factory) {
    return new JpaTransactionManager(factory.getObject());
  }

  @Bean
  TransactionTemplate transactionTemplate(PlatformTransactionManager transactionManager) {
    return new TransactionTemplate(transactionManager);
  }

  public static void main(String[] phone) {
    Scanner typed = new Scanner(System.in);
    try (AnnotationConfigApplicationContext context =
        new AnnotationConfigApplicationContext(Application.class)) {
      SignUp signUp = context.getBean(SignUp.class);
      Customer customer = signUp.signUp(phone[0], System.out::println);
      Object outcome;
      do {
        System.out.print("The code: ");
        outcome = signUp.verify(customer.id, typed.nextLine()).get("outcome");
        System.out.println(outcome);
      } while (outcome.equals("invalid_code"));
    }
  }
}
